"""The loop: what it does at each step, and that a run which was stopped ends as the unbroken one does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.structures import Batch
from boxwright.training import loop, planning, step
from boxwright.training.checkpoint import Progress, RunCheckpoints
from boxwright.training.distributed import Rank
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.moving_average import MovingAverage
from boxwright.training.run import RECIPE, Run
from boxwright.training.step import train_step
from equality import assert_equal, timeless
from training.conftest import read_run

MakeRun = Callable[..., Run]

STAGES = {
    "steps": 20,
    "schedule__evaluations": 4,
    "schedule__warmup_steps": 100,
    "schedule__decay_fraction": 0.5,
    "schedule__no_aug_fraction": 0.2,
    "schedule__final_lr_ratio": 0.1,
}
"""Warm-up in steps 1 and 2, decay from step 11, light augmentation from step 17, evaluations after 5, 10, 15, 20."""


@pytest.fixture(scope="module")
def unbroken_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("unbroken")


@pytest.fixture
def unbroken(make_run: MakeRun, unbroken_folder: Path) -> Run:
    """A run through all ``STAGES`` without a stop; trained once."""
    run = replace(make_run(**STAGES), folder=unbroken_folder / "run")
    if not run.folder.exists():
        run_training(run)
    return run


class TestResume:
    @pytest.mark.parametrize(
        "stops",
        [
            pytest.param([1, 9, 3, 5], id="warm-up, evaluation, decay and light stage"),
            pytest.param([1], id="warm-up", marks=pytest.mark.slow),
            pytest.param([10], id="with an evaluation", marks=pytest.mark.slow),
            pytest.param([13], id="decay", marks=pytest.mark.slow),
            pytest.param([16, 2], id="light stage, twice", marks=pytest.mark.slow),
        ],
    )
    def test_a_broken_run_ends_as_the_unbroken_one(
        self, make_run: MakeRun, unbroken: Run, interrupt_at: Callable[[int], None], stops: list[int]
    ) -> None:
        """Weights, average, optimizer, progress, log: bit by bit, with several sizes and denoising on."""
        done = 0
        for part, steps in enumerate(stops):
            interrupt_at(steps)
            with pytest.raises(Interrupted):
                run_training(make_run("broken", weights_seed=part, **STAGES), resume=part > 0)
            done += steps
            assert read_run(make_run("broken"), "last.pt")["progress"]["step"] == done
        broken = make_run("broken", weights_seed=99, **STAGES)
        interrupt_at(1000)
        progress = run_training(broken, resume=True)

        assert (progress.step, progress.steps) == (20, 20)
        assert_equal(read_run(broken, "last.pt"), read_run(unbroken, "last.pt"))
        assert_equal(read_run(broken, "best.safetensors"), read_run(unbroken, "best.safetensors"))
        assert timeless(read_log(broken.folder)) == timeless(read_log(unbroken.folder))

    def test_sgd_goes_on_with_its_momentum(self, make_run: MakeRun, interrupt_at: Callable[[int], None]) -> None:
        options: dict[str, Any] = {"steps": 4, "schedule__evaluations": 1, "optimizer__name": "sgd", "lr": 1e-3}
        whole, broken = make_run("whole", **options), make_run("broken", **options)
        run_training(whole)
        interrupt_at(2)
        with pytest.raises(Interrupted):
            run_training(broken)
        interrupt_at(1000)
        broken = make_run("broken", weights_seed=99, **options)
        run_training(broken, resume=True)
        assert any("momentum_buffer" in state for state in read_run(broken, "last.pt")["optimizer"]["state"].values())
        assert_equal(read_run(broken, "last.pt"), read_run(whole, "last.pt"))

    def test_the_unbroken_run_goes_through_every_stage(self, unbroken: Run) -> None:
        """Else the comparison would say little."""
        rows = [row for row in read_log(unbroken.folder) if row["kind"] == "train"]
        assert [row["step"] for row in rows] == list(range(1, 21))
        assert {row["image_size"] for row in rows[:16]} == {32, 64, 96}
        assert {row["image_size"] for row in rows[16:]} == {64}
        factors = [row["lr"] / 0.001 for row in rows]
        assert factors[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
        assert factors[10] == pytest.approx(1.0)
        assert factors[19] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.9)) / 2)
        assert {"varifocal", "l1", "giou", "varifocal_encoder", "giou_denoising_0"} <= rows[0]["losses"].keys()
        assert rows[0]["loss"] == pytest.approx(sum(rows[0]["losses"].values()))
        evaluated = [row["step"] for row in read_log(unbroken.folder) if row["kind"] == "eval"]
        assert evaluated == [5, 10, 15, 20]
        last = read_run(unbroken, "last.pt")
        assert any(not torch.equal(last["ema"][name], tensor) for name, tensor in last["model"].items())

    def test_another_seed_is_another_run(self, make_run: MakeRun, unbroken: Run) -> None:
        other = make_run(runtime__seed=1, **{**STAGES, "steps": 2})
        run_training(other)
        first, second = timeless(read_log(other.folder))[0], timeless(read_log(unbroken.folder))[0]
        assert first["loss"] != second["loss"]

    def test_a_finished_run_is_left_as_it_is(self, make_run: MakeRun, unbroken: Run) -> None:
        before = (unbroken.folder / "last.pt").read_bytes(), timeless(read_log(unbroken.folder))
        progress = run_training(replace(make_run(weights_seed=5, **STAGES), folder=unbroken.folder), resume=True)
        assert progress.step == 20
        assert ((unbroken.folder / "last.pt").read_bytes(), timeless(read_log(unbroken.folder))) == before


class TestAverage:
    def test_it_moves_once_per_optimizer_step(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same, however many batches a step is accumulated from (TRAPS 8)."""
        decays: list[float] = []
        real = MovingAverage.update

        def update(self: MovingAverage, model: torch.nn.Module, decay: float) -> None:
            decays.append(decay)
            real(self, model, decay)

        monkeypatch.setattr(MovingAverage, "update", update)
        run_training(make_run(steps=3, batches__accumulate_steps=4, ema_decay=0.15))
        assert decays == [1 / 10, 0.15, 0.15]

    def test_it_is_what_is_measured_and_kept_as_best(self, make_run: MakeRun) -> None:
        run = make_run(steps=2, schedule__evaluations=1)
        run_training(run)
        last, best = read_run(run, "last.pt"), read_run(run, "best.safetensors")
        assert_equal(best["model"], dict(last["ema"]))
        total = sum(float(best["model"][name].double().abs().sum()) for name, _ in run.detector.named_parameters())
        assert last["progress"]["best"] == pytest.approx(total % 1, abs=1e-9)

    def test_there_may_be_none(self, make_run: MakeRun) -> None:
        run = make_run(steps=2, schedule__evaluations=1, ema_decay=0.0)
        run_training(run)
        last = read_run(run, "last.pt")
        assert "ema" not in last
        assert_equal(read_run(run, "best.safetensors")["model"], dict(last["model"]))


class Scripted:
    """Measures what it is told to."""

    num_images = 6

    def __init__(self, *aps: float) -> None:
        self.aps = iter(aps)

    def __call__(self, _detector: Any, _limit: int | None = None) -> dict[str, Any]:
        ap = next(self.aps)
        return {"AP": ap, "AP50": ap}


@pytest.mark.parametrize(
    ("aps", "best_step", "best"),
    [((0.1, 0.3, 0.2), 2, 0.3), ((0.3, 0.3, 0.3), 3, 0.3), ((-1.0, -1.0, -1.0), 3, -1.0), ((0.0, 0.0, 0.1), 3, 0.1)],
)
def test_the_best_is_kept(make_run: MakeRun, aps: tuple[float, ...], best_step: int, best: float) -> None:
    """The later one where values are equal, and where there is nothing to find, and AP is -1; which is said."""
    notes: list[str] = []
    run = replace(make_run(steps=3, schedule__evaluations=3), evaluate=Scripted(*aps), note=notes.append)
    assert run_training(run).best == best
    assert len(notes) == (aps[0] == aps[1] != 0)
    assert read_run(run, "best.safetensors")["progress"]["step"] == best_step
    assert read_run(run, "last.pt")["progress"]["step"] == 3


def test_without_a_validation_the_last_is_the_best(make_run: MakeRun) -> None:
    run = replace(make_run(steps=2, schedule__evaluations=1), evaluate=None)
    assert run_training(run).best < 0
    assert_equal(read_run(run, "best.safetensors")["model"], dict(read_run(run, "last.pt")["ema"]))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [("5m", [3, 8]), ("30s", [2, 4, 6, 8]), ("1s", [1, 2, 3, 4, 5, 6, 7, 8])],
)
def test_a_checkpoint_is_written_now_and_then(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, interval: str, expected: list[int]
) -> None:
    """The first within a minute, the others after the interval; a step takes 20 s here."""
    now = iter(range(1_000_000))
    saved: list[tuple[int, bool]] = []

    def save(_self: RunCheckpoints, progress: Progress, *, best: bool) -> list[Path]:
        saved.append((progress.step, best))
        return []

    clock = [0.0]

    def step(*arguments: Any) -> Any:
        clock[0] += 20.0
        return train_step(*arguments)

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0] + next(now) * 1e-6)
    monkeypatch.setattr(RunCheckpoints, "save", save)
    monkeypatch.setattr(loop, "train_step", step)
    run_training(replace(make_run(steps=8, schedule__evaluations=1, runtime__save_interval=interval), began=0.0))
    assert [step for step, _ in saved] == expected
    assert [step for step, best in saved if best] == [8]


@pytest.mark.parametrize("evaluations", [0, 2])
def test_there_may_be_no_evaluation(make_run: MakeRun, evaluations: int) -> None:
    run = make_run(steps=4, schedule__evaluations=evaluations)
    run_training(run)
    assert len(run.evaluate.calls) == evaluations
    if not evaluations:
        assert_equal(read_run(run, "best.safetensors")["model"], dict(read_run(run, "last.pt")["ema"]))


@pytest.mark.parametrize(
    ("processes", "options", "message"),
    [
        (1, {"runtime__compile": "on", "batches__activation_checkpointing": True}, "compile on does not go with"),
        (3, {}, "a batch of 4 cannot be divided evenly between 3 processes"),
        (1, {"optimizer__lr_factors": {"nowhere": 0.1}}, "no trainable parameter has nowhere in its name"),
        (
            1,
            {"steps": None, "budget": "1s", "runtime__compile": "on", "batches__activation_checkpointing": True},
            "compile on",
        ),
    ],
)
def test_options_are_checked_before_anything_is_written(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, processes: int, options: dict[str, Any], message: str
) -> None:
    rank = Rank(0, processes, torch.device("cpu"))
    monkeypatch.setattr(loop, "init_distributed", lambda _device: rank)
    run = make_run(**options)
    with pytest.raises(ValueError, match=message):
        run_training(run)
    assert not run.folder.exists()


def test_a_data_set_without_images_leaves_no_folder(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(ValueError, match="the data set is empty"):
        run_training(replace(run, data=replace(run.data, records=())))
    assert not run.folder.exists()


def test_options_of_a_run_that_goes_on_are_checked_before_anything_is_written(make_run: MakeRun) -> None:
    run_training(make_run(steps=1))
    folder = make_run().folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match="compile on does not go with"):
        run_training(make_run(steps=2, runtime__compile="on", batches__activation_checkpointing=True), resume=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_auto_comes_to_is_stored(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "choose_precision", lambda _name, _device: "bfloat16")
    run = make_run(steps=1, runtime__precision="auto")
    run_training(run)
    assert read_run(run, "last.pt")["recipe"]["train"]["runtime"]["precision"] == "bfloat16"
    assert "precision: bfloat16" in (run.folder / RECIPE).read_text()


def test_batches_of_a_size_are_those_of_training(make_run: MakeRun) -> None:
    run = make_run()
    batch = next(planning.batches_of_size(run, loop.init_distributed("cpu"), 96))
    assert isinstance(batch, Batch)
    assert batch.images.shape == (4, 3, 96, 96)


def test_progress_is_plain(make_run: MakeRun) -> None:
    run = make_run(steps=1)
    progress = run_training(run)
    assert isinstance(progress, Progress)
    assert progress.seconds > 0
