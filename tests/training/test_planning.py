"""The length of a run: from epochs, or from a budget of time that is kept at any speed."""

from __future__ import annotations

import io
import itertools
import re
import signal
import time
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from rich.console import Console

from boxwright.structures import Batch
from boxwright.training import loop, planning
from boxwright.training.callbacks import Callback
from boxwright.training.checkpoint import Progress, RunCheckpoints
from boxwright.training.distributed import Rank
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.training.step import StepResult
from training.conftest import MakeRun, WeightSum, read_run


def begin(run: Run) -> Progress:
    return planning.begin_progress(run, loop.init_distributed("cpu"))[0]


class Machine:
    """Time passes in steps, evaluations and checkpoints only, as fast as the test says; nothing is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, step: float, evaluation: float = 0.0) -> None:
        self.now, self.slowness, self.step, self.evaluation = 1000.0, 1.0, step, evaluation
        self.steps = 0
        monkeypatch.setattr(loop.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(loop, "train_step", self.train)
        nothing = Batch(torch.zeros(1), None, [], [], [])
        monkeypatch.setattr(loop, "training_batches", lambda *_: itertools.repeat(nothing))
        monkeypatch.setattr(RunCheckpoints, "save", lambda *_, **__: self.pass_time(0.5) or [])
        monkeypatch.setattr(planning, "measure_step", lambda *_, **__: step)
        monkeypatch.setattr(planning, "_measure_evaluation", lambda *_: evaluation)
        self.changes: list[tuple[float, float]] = []

    def pass_time(self, seconds: float) -> None:
        while self.changes and self.now >= self.changes[0][0]:
            self.slowness = self.changes.pop(0)[1]
        self.now += seconds * self.slowness

    def train(self, *_: Any) -> StepResult:
        self.steps += 1
        # Sizes of images vary.
        self.pass_time(self.step * (0.6, 1.0, 1.4)[self.steps % 3])
        return StepResult({"loss": 1.0}, 1.0)


class Timed(WeightSum):
    """Takes the machine's time."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __call__(self, detector: Any, limit: int | None = None) -> dict[str, Any]:
        self.machine.pass_time(self.machine.evaluation)
        return super().__call__(detector, limit)


class TestPlan:
    TEN_MINUTES: ClassVar[dict[str, Any]] = {
        "steps": None,
        "budget": "10m",
        "ema_decay": 0.0,
        "schedule__evaluations": 2,
    }

    def test_epochs_count_every_image(self, make_run: MakeRun) -> None:
        """3 epochs of 10 images are 7.5 batches of 4, so 8."""
        run = make_run(steps=None, epochs=3)
        assert begin(run) == Progress(step=0, steps=8, evaluations=run.options.schedule.evaluations)

    def test_a_slow_machine_ends_in_time_and_goes_through_the_schedule(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        machine = Machine(monkeypatch, step=6.0, evaluation=8.0)
        machine.changes = [(1300.0, 3.0)]
        callback, told = Callback(), list[float]()
        callback.on_step = lambda event: told.append(machine.now + event.seconds_left)  # type: ignore[method-assign]
        run = replace(make_run(**self.TEN_MINUTES), began=machine.now, evaluate=Timed(machine), callbacks=[callback])
        progress = run_training(run)
        assert set(told) == {1600.0}  # at once, and however slow the machine becomes
        # Checkpoints after the last evaluation included.
        assert machine.now - 1000 == pytest.approx(600, rel=0.05)
        assert progress.step == machine.steps == progress.steps
        assert progress.length > 90 > 70 > progress.steps
        rows = read_log(run.folder)
        last = [row for row in rows if row["kind"] == "train"][-1]
        # The rate has come down as far as in a run of fixed length.
        assert last["lr"] < 0.1 * run.options.lr
        evaluated = [row["step"] for row in rows if row["kind"] == "eval"]
        assert evaluated[-1] == progress.step
        assert len(evaluated) == 2

    def test_a_last_evaluation_that_takes_less_than_foreseen_is_no_end(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Four times as long was measured; the run goes on as the schedule ends, and is evaluated again."""
        machine = Machine(monkeypatch, step=2.0, evaluation=120.0)
        options = {**self.TEN_MINUTES, "schedule__evaluations": 1}
        run = replace(make_run(**options), began=machine.now, evaluate=Timed(machine))
        machine.evaluation = 30.0
        monkeypatch.setattr(planning, "_measure_evaluation", lambda *_: 120.0)
        progress = run_training(run)
        assert machine.now - 1000 == pytest.approx(600, rel=0.05)
        assert progress.is_finished
        assert progress.step == machine.steps > 260
        rows = read_log(run.folder)
        first, second = (row["step"] for row in rows if row["kind"] == "eval")
        assert 220 < first < 245
        assert second == progress.step
        rates = [row["lr"] for row in rows if row["kind"] == "train" and row["step"] > first]
        assert rates
        assert max(rates) <= run.options.schedule.final_lr_ratio * run.options.lr * 1.01

    def test_a_run_that_was_stopped_does_not_go_on(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = Machine(monkeypatch, step=2.0, evaluation=10.0)
        callback = Callback()
        callback.on_step = lambda event: event.stop() if event.step == 20 else None  # type: ignore[method-assign]
        run = replace(make_run(**self.TEN_MINUTES), began=machine.now, callbacks=[callback], evaluate=Timed(machine))
        progress = run_training(run)
        assert machine.steps == progress.step == 20

    def test_a_run_that_goes_on_has_what_is_left_of_its_budget(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save = RunCheckpoints.save
        machine = Machine(monkeypatch, step=2.0)
        monkeypatch.setattr(RunCheckpoints, "save", save)
        options = {"steps": None, "budget": "100s", "schedule__evaluations": 1}

        def stop(event: Any) -> None:
            if event.step == 20:
                signal.raise_signal(signal.SIGINT)

        callback = Callback()
        callback.on_step = stop  # type: ignore[method-assign]
        run = replace(make_run(**options), began=machine.now, callbacks=[callback])
        with pytest.raises(Interrupted):
            run_training(run)
        stored = read_run(run, "last.pt")["progress"]
        assert stored["step"] == 20
        monkeypatch.setattr(planning, "measure_step", lambda *_, **__: pytest.fail("measured again"))
        machine.now += 5000
        run = replace(make_run(**options), began=machine.now)
        progress = run_training(run, resume=True)
        assert progress.seconds == pytest.approx(100, rel=0.05)
        assert progress.step == pytest.approx(50, abs=2)

    def test_a_spent_budget_is_evaluated_and_ends(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        machine = Machine(monkeypatch, step=20.0)
        machine.changes = [(1000, 10.0)]
        run = replace(make_run(**self.TEN_MINUTES), began=machine.now)
        progress = run_training(run)
        assert progress.steps == progress.step
        assert [row["step"] for row in read_log(run.folder) if row["kind"] == "eval"] == [progress.step]

    def test_a_budget_is_measured_for_real_and_says_what_it_buys(self, make_run: MakeRun) -> None:
        """The time of a step is the machine's affair; that the planned run fits into ten minutes is not."""
        printed = io.StringIO()
        run = replace(make_run(steps=None, budget="10m"), console=Console(file=printed))
        run = replace(run, began=time.monotonic())
        planned = begin(run)
        match = re.fullmatch(
            r"(\d+\.\d\d) s a step: about (\d+) steps, (\d+) passes over 10 images, and (\d+) evaluations fit "
            r"into 10m\n",
            printed.getvalue(),
        )
        assert match is not None
        assert (int(match[2]), int(match[4])) == (planned.steps, planned.evaluations)
        assert int(match[3]) == round(planned.steps * 4 / 10)
        assert planned.steps * (float(match[1]) - 0.005) < 600

    def test_a_budget_that_buys_little_is_said(self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
        notes: list[str] = []
        monkeypatch.setattr(planning, "measure_step", lambda *_, **__: 50.0)
        run = replace(make_run(steps=None, budget="10m"), note=notes.append, began=time.monotonic())
        planned = begin(run)
        passes = planned.steps * 4 / 10
        more = -int(-600 * 5 / passes // 60)
        assert notes == [
            "from random weights that is too little to learn much: "
            f"give --train.budget {more}m, or begin with --weights"
        ]
        begin(replace(run, initial_weights={"source": "x"}))
        assert len(notes) == 1

    def test_too_small_a_budget_leaves_nothing(self, make_run: MakeRun) -> None:
        run = make_run(steps=None, budget="0.1s")
        with pytest.raises(ValueError, match=r"train\.budget is too small"):
            run_training(run)
        assert not run.folder.exists()

    @pytest.mark.parametrize(("num_images", "processes", "expected"), [(400, 1, 42.0), (400, 2, 42.0), (1, 1, 2.1)])
    def test_what_evaluating_takes_is_measured_on_a_few_images(
        self, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, num_images: int, processes: int, expected: float
    ) -> None:
        """Without multiplying work that is done once in an evaluation, or counting what only the first one takes."""
        now = 1000.0
        monkeypatch.setattr(planning.time, "monotonic", lambda: now)

        class Slow(WeightSum):
            def __call__(self, detector: Any, limit: int | None = None) -> dict[str, Any]:
                nonlocal now
                now += 2.0 + 0.1 * (limit or 0) + (0.0 if self.calls else 5.0)
                return super().__call__(detector, limit)

        slow = Slow()
        slow.num_images = num_images
        run = replace(make_run(steps=None, budget="1h"), evaluate=slow)
        measured = planning._measure_evaluation(run, Rank(0, processes, torch.device("cpu")))
        assert measured == pytest.approx(expected)
        assert slow.calls == ([1, 1, 8 * processes] if num_images > 1 else [1, 1])
