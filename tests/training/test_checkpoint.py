"""Checkpoints: whole or not there, and refused where training cannot go on from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.checkpoints import BEST, LAST, PREVIOUS, find_checkpoint, read_checkpoint, write_checkpoint
from boxwright.files import UNFINISHED
from boxwright.training.checkpoint import Progress, RunCheckpoints
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.weights.model import load
from equality import assert_equal


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


def checkpoints_of(folder: Path, run: Run, *, average: bool = True) -> RunCheckpoints:
    """The files of a run whose optimizer and average are fresh."""
    return RunCheckpoints(
        folder,
        run.recipe,
        run.detector,
        average_of(run) if average else None,
        make_optimizer(run.detector, run.options),
    )


def progress_at(step: int, **changes: Any) -> Progress:
    return replace(Progress(step=step, steps=20, evaluations=2, best=0.25, seconds=1.5, best_step=step), **changes)


def save_at(folder: Path, run: Run, step: int, *, average: bool = True, best: bool = False) -> None:
    checkpoints_of(folder, run, average=average).save(progress_at(step), best=best)


def test_it_holds_plain_values_and_both_sets_of_weights(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path, run, 7)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["progress"] == {
        "step": 7,
        "steps": 20,
        "evaluations": 2,
        "best": 0.25,
        "measure": "AP",
        "seconds": 1.5,
        "length": 20,
        "planned_at": 0,
        "planned_position": 0.0,
        "evaluation_seconds": 0.0,
        "evaluation_due": False,
        "best_step": 7,
        "ties": 0,
        "failed_steps": 0,
        "evaluations_without_rise": 0,
        "threads": 0,
        "compiled": "",
    }
    assert state["recipe"] == run.recipe.to_dict()
    assert state["categories"] == [(category.id, category.name) for category in run.data.categories]
    assert [number for number, _ in state["categories"]] == [58, 65, 72, 79, 86, 93]
    bias = "head.encoder_classes.bias"
    assert torch.equal(state["ema"][bias], state["model"][bias] + 1.0)
    assert state["optimizer"]["param_groups"][0]["peak_lr"] > 0


def test_to_predict_with_it_holds_the_average_alone(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path, run, 7, best=True)
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
    save_at(tmp_path, run, 7)
    before = path.read_bytes()
    real_save = torch.save

    def fail_half_way(state: dict[str, Any], file: Any) -> None:
        real_save({**state, "optimizer": None}, file)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail_half_way)
        with pytest.raises(OSError, match="No space left"):
            save_at(tmp_path, run, 8)
    assert path.read_bytes() == before
    save_at(tmp_path, run, 9)
    assert read_checkpoint(path)["progress"]["step"] == 9
    assert {file.name for file in tmp_path.iterdir()} == {"last.pt", "last.previous.pt"}


def go_on(folder: Path, run: Run, *, average: bool = True) -> tuple[Progress, list[str]]:
    """Resume; return how far it is, and what is said."""
    notes: list[str] = []
    return checkpoints_of(folder, run, average=average).resume(notes.append), notes


def damage(path: Path, *, bit: int | None = None) -> None:
    """Change one bit, in the middle of a file where not said otherwise."""
    content = bytearray(path.read_bytes())
    bit = 4 * len(content) if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.unlink()  # else tensors that were read from it, and lie in it still, would change too
    path.write_bytes(content)


def test_everything_comes_back(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    first, second = make_run(weights_seed=1), make_run(weights_seed=2)
    save_at(tmp_path, first, 7, best=True)
    assert go_on(tmp_path, second) == (progress_at(7), [])
    for name, tensor in first.detector.state_dict().items():
        assert torch.equal(second.detector.state_dict()[name], tensor), name


def test_what_is_there_to_predict_with_is_no_start(tmp_path: Path, run: Run) -> None:
    save_at(tmp_path, run, 7, best=True)
    write_checkpoint(tmp_path / LAST, read_checkpoint(tmp_path / BEST))
    with pytest.raises(
        ValueError, match=r"last\.pt: only holds weights to predict with; resume from the run's last\.pt"
    ):
        go_on(tmp_path, run)


@pytest.mark.parametrize("average", [True, False])
def test_the_average_cannot_be_switched(tmp_path: Path, run: Run, average: bool) -> None:
    save_at(tmp_path, run, 7, average=not average)
    with pytest.raises(ValueError, match=r"last\.pt: train\.ema_decay has been switched since"):
        go_on(tmp_path, run, average=average)


def test_another_recipe(tmp_path: Path, run: Run, tiny_recipe: dict[str, Any], make_run: Callable[..., Run]) -> None:
    save_at(tmp_path, run, 7)
    tiny_recipe["head"]["decoder"]["num_layers"] = 3
    with pytest.raises(ValueError, match=r"last\.pt: does not fit the run's recipe: ") as caught:
        go_on(tmp_path, make_run())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("progress", [{"epoch": 3}, {"step": "x", "steps": 3, "evaluations": 1}, 3, None])
def test_progress_of_another_kind(tmp_path: Path, run: Run, progress: Any) -> None:
    save_at(tmp_path, run, 7)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.save({**state, "progress": progress}, tmp_path / "last.pt")
    with pytest.raises(
        ValueError, match=r"last\.pt: (a damaged checkpoint: its progress |does not fit the run's recipe: )"
    ):
        go_on(tmp_path, run)


def test_nothing_there(tmp_path: Path, run: Run) -> None:
    with pytest.raises(FileNotFoundError, match=r"last\.pt: no such file"):
        go_on(tmp_path, run)


class TestTheLastTwo:
    def test_both_are_kept(self, tmp_path: Path, run: Run) -> None:
        files = checkpoints_of(tmp_path, run)
        for step in (1, 2, 3):
            assert files.save(progress_at(step), best=False) == [tmp_path / LAST]
        assert [read_checkpoint(tmp_path / name)["progress"]["step"] for name in (LAST, PREVIOUS)] == [3, 2]

    @pytest.mark.parametrize("is_gone", [True, False])
    def test_the_one_before_is_taken_and_not_overwritten(self, tmp_path: Path, run: Run, is_gone: bool) -> None:
        files = checkpoints_of(tmp_path, run)
        for step in (1, 2):
            files.save(progress_at(step, best_step=0), best=False)
        (tmp_path / LAST).unlink() if is_gone else damage(tmp_path / LAST)
        assert find_checkpoint(tmp_path) == tmp_path / PREVIOUS
        resumed, notes = checkpoints_of(tmp_path, run), list[str]()
        assert resumed.resume(notes.append).step == 1
        assert notes == [
            f"{tmp_path / LAST} is {'missing' if is_gone else 'damaged'}: the checkpoint before it is taken, "
            f"{tmp_path / PREVIOUS}"
        ]
        resumed.save(progress_at(2, best_step=0), best=False)
        assert [read_checkpoint(tmp_path / name)["progress"]["step"] for name in (LAST, PREVIOUS)] == [2, 1]

    def test_both_damaged(self, tmp_path: Path, run: Run) -> None:
        files = checkpoints_of(tmp_path, run)
        for step in (1, 2):
            files.save(progress_at(step), best=False)
        damage(tmp_path / LAST)
        damage(tmp_path / PREVIOUS)
        with pytest.raises(
            ValueError, match=r"last\.pt is damaged, and the checkpoint before it is no help: .*checksum"
        ):
            go_on(tmp_path, run)

    def test_files_of_a_killed_process_are_removed(self, tmp_path: Path, run: Run) -> None:
        save_at(tmp_path, run, 7)
        for name in (LAST, BEST, "log.jsonl"):
            (tmp_path / f"{name}{UNFINISHED}").write_bytes(b"half")
        go_on(tmp_path, run)
        assert not list(tmp_path.glob(f"*{UNFINISHED}"))


class TestTheBest:
    def test_it_is_written_before_the_last(self, tmp_path: Path, run: Run) -> None:
        """But for the first time: there would be nothing to go on from."""
        files = checkpoints_of(tmp_path, run)
        assert files.save(progress_at(1), best=True) == [tmp_path / LAST, tmp_path / BEST]
        assert files.save(progress_at(2), best=True) == [tmp_path / BEST, tmp_path / LAST]

    @pytest.mark.parametrize("is_gone", [True, False])
    @pytest.mark.parametrize("later", [0, 1])
    def test_it_is_restored_from_the_last_two(self, tmp_path: Path, run: Run, is_gone: bool, later: int) -> None:
        files = checkpoints_of(tmp_path, run)
        files.save(progress_at(4), best=True)
        before = read_checkpoint(tmp_path / BEST)
        if later:
            files.save(progress_at(5, best_step=4), best=False)
        (tmp_path / BEST).unlink() if is_gone else damage(tmp_path / BEST)
        progress, notes = go_on(tmp_path, run)
        assert notes == [
            f"{tmp_path / BEST} is {'missing' if is_gone else 'damaged'}: it is restored from "
            f"{PREVIOUS if later else LAST}"
        ]
        assert (progress.best, progress.best_step) == (0.25, 4)
        assert_equal(read_checkpoint(tmp_path / BEST), before)

    def test_where_it_is_lost_the_next_one_counts(self, tmp_path: Path, run: Run) -> None:
        files = checkpoints_of(tmp_path, run)
        files.save(progress_at(4), best=True)
        for step in (5, 6):
            files.save(progress_at(step, best_step=4), best=False)
        damage(tmp_path / BEST)
        progress, notes = go_on(tmp_path, run)
        assert notes == [f"{tmp_path / BEST} is damaged: the next evaluation counts as the best"]
        assert (progress.best, progress.best_step) == (-1.0, 0)

    def test_a_later_one_than_the_last_knows_of_stays(self, tmp_path: Path, run: Run) -> None:
        """Of a process killed between the two, which goes on otherwise and may never be as good again."""
        files = checkpoints_of(tmp_path, run)
        files.save(progress_at(4), best=True)
        earlier = (tmp_path / LAST).read_bytes()
        files.save(progress_at(8, best=0.5, ties=1), best=True)
        (tmp_path / LAST).write_bytes(earlier)
        progress, notes = go_on(tmp_path, run)
        assert (progress, notes) == (progress_at(4, best=0.5, best_step=8, ties=1), [])

    def test_one_of_an_earlier_release_knows_its_value(self, tmp_path: Path, run: Run) -> None:
        """There the last one may know of a better value than that of the weights that were kept."""
        save_at(tmp_path, run, 4, best=True)
        for name, value in ((LAST, 0.9), (BEST, 0.1)):
            content = read_checkpoint(tmp_path / name)
            step = 8 if name == LAST else 4
            old = {"step": step, "steps": 20, "evaluations": 2, "best": value, "measure": "AP", "seconds": 1.5}
            write_checkpoint(tmp_path / name, {**content, "progress": old})
        progress, notes = go_on(tmp_path, run)
        assert (progress.step, progress.best, progress.best_step, notes) == (8, 0.1, 4, [])


def test_another_length_is_noticed(tmp_path: Path, run: Run, make_run: Callable[..., Run]) -> None:
    save_at(tmp_path, run, 7)
    for options, is_new in (({}, False), ({"steps": 21}, True), ({"schedule__evaluations": 3}, True)):
        files = checkpoints_of(tmp_path, make_run(**options))
        files.resume(lambda _line: None)
        assert files.has_new_length is is_new


def test_a_new_length() -> None:
    progress = progress_at(7, planned_at=3, planned_position=5.0)
    progress.change_length(30, 3)
    assert progress == progress_at(7, best_step=7, steps=30, length=30, evaluations=3)
    with pytest.raises(ValueError, match="the run has done 7 steps already, and is to have 6: give a greater length"):
        progress.change_length(6, 3)
