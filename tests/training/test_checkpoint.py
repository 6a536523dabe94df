"""Checkpoints: whole or not there, and refused where training cannot go on from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.checkpoints import read_checkpoint
from boxwright.training import checkpoint
from boxwright.training.checkpoint import Progress, resume_progress, save_progress
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.weights.model import load


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    return make_run()


def average_of(run: Run) -> MovingAverage:
    """One whose weights differ from the detector's."""
    average = MovingAverage(run.detector)
    with torch.no_grad():
        for parameter in average.model.parameters():
            parameter.add_(1.0)
    return average


def save_at(path: Path, run: Run, step: int, *, average: bool = True, optimizer: bool = True) -> None:
    save_progress(
        path,
        run.detector,
        average_of(run) if average else None,
        run.recipe,
        optimizer=make_optimizer(run.detector, run.options) if optimizer else None,
        progress=Progress(step=step, steps=20, evaluations=2, best=0.25, seconds=1.5),
    )


def test_it_holds_plain_values_and_both_sets_of_weights(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path / "last.pt", run, 7)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["progress"] == {
        "step": 7,
        "steps": 20,
        "evaluations": 2,
        "best": 0.25,
        "measure": "AP",
        "seconds": 1.5,
    }
    assert state["recipe"] == run.recipe.to_dict()
    assert state["categories"] == [(category.id, category.name) for category in run.data.categories]
    assert [number for number, _ in state["categories"]] == [58, 65, 72, 79, 86, 93]
    bias = "head.encoder_classes.bias"
    assert torch.equal(state["ema"][bias], state["model"][bias] + 1.0)
    assert state["optimizer"]["param_groups"][0]["peak_lr"] > 0


def test_to_predict_with_it_holds_the_average_alone(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path / "best.safetensors", run, 7, optimizer=False)
    state = read_checkpoint(tmp_path / "best.safetensors")
    assert "ema" not in state
    assert "optimizer" not in state
    loaded = load(tmp_path / "best.safetensors").state_dict()
    for name, tensor in average_of(run).model.state_dict().items():
        assert torch.equal(state["model"][name], tensor), name
        assert torch.equal(loaded[name], tensor), name


def test_a_crash_while_writing_leaves_the_older_one_whole(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    save_at(path, run, 7)
    before = path.read_bytes()
    real_save = torch.save

    def fail_half_way(state: dict[str, Any], file: Any) -> None:
        real_save({**state, "optimizer": None}, file)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", fail_half_way)
        with pytest.raises(OSError, match="No space left"):
            save_at(path, run, 8)
    assert path.read_bytes() == before
    save_at(path, run, 9)
    assert read_checkpoint(path)["progress"]["step"] == 9
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".yaml"] == ["last.pt"]


def go_on(path: Path, run: Run, *, average: bool = True) -> Progress:
    return resume_progress(
        path, run.detector, average_of(run) if average else None, make_optimizer(run.detector, run.options)
    )


def test_everything_comes_back(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    first, second = make_run(weights_seed=1), make_run(weights_seed=2)
    save_at(tmp_path / "last.pt", first, 7)
    assert go_on(tmp_path / "last.pt", second) == Progress(7, 20, 2, 0.25, seconds=1.5)
    for name, tensor in first.detector.state_dict().items():
        assert torch.equal(second.detector.state_dict()[name], tensor), name


def test_what_is_there_to_predict_with_is_no_start(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path / "best.safetensors", run, 7, optimizer=False)
    with pytest.raises(
        ValueError, match=r"best\.safetensors: only holds weights to predict with; resume from the run's last\.pt"
    ):
        go_on(tmp_path / "best.safetensors", run)


@pytest.mark.parametrize("average", [True, False])
def test_the_average_cannot_be_switched(tmp_path: Path, run: Run, average: bool) -> None:
    save_at(tmp_path / "last.pt", run, 7, average=not average)
    with pytest.raises(ValueError, match=r"last\.pt: train\.ema_decay has been switched since"):
        go_on(tmp_path / "last.pt", run, average=average)


def test_another_recipe(tmp_path: Path, run: Run, tiny_recipe: dict[str, Any], make_run: Callable[..., Run]) -> None:
    save_at(tmp_path / "last.pt", run, 7)
    tiny_recipe["head"]["decoder"]["num_layers"] = 3
    with pytest.raises(ValueError, match=r"last\.pt: does not fit the run's recipe: ") as caught:
        go_on(tmp_path / "last.pt", make_run())
    assert "\n" not in str(caught.value)


def test_progress_of_another_kind(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path / "last.pt", run, 7)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.save({**state, "progress": {"epoch": 3}}, tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: does not fit the run's recipe: "):
        go_on(tmp_path / "last.pt", run)


def test_nothing_there(tmp_path: Path, run: Run) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.pt: no such file"):
        go_on(tmp_path / "last.pt", run)
