"""Events of training: their order, their content, and the ways that callbacks end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from boxwright.training.callbacks import (
    Callback,
    CheckpointEvent,
    EarlyStopping,
    EvaluationEvent,
    StepEvent,
    StopRequest,
)
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from equality import assert_equal

MakeRun = Callable[..., Run]


class Recorder(Callback):
    """Writes down what it hears of, and stops training after the events that it is told to."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.heard: list[tuple[str, int]] = []
        self.events: list[Any] = []
        self.stop_at, self.closed = stop_at, 0

    def take(self, kind: str, event: Any) -> None:
        self.heard.append((kind, event.step))
        self.events.append(event)
        if self.stop_at == (kind, event.step):
            event.stop("enough")

    def on_step(self, event: StepEvent) -> None:
        self.take("step", event)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.take("evaluation", event)

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        self.take(event.path.name, event)

    def close(self) -> None:
        self.closed += 1


def recorded(make_run: MakeRun, recorder: Callback, name: str = "run", **options: Any) -> Run:
    run = replace(make_run(name, **options), callbacks=[recorder])
    run_training(run)
    return run


def test_every_event_in_order(make_run: MakeRun) -> None:
    recorder = Recorder()
    run = recorded(make_run, recorder, steps=4, schedule__evaluations=2)
    one = [("step", 1), ("step", 2), ("evaluation", 2), ("last.pt", 2), ("best.safetensors", 2)]
    assert recorder.heard[:8] == [*one, ("step", 3), ("step", 4), ("evaluation", 4)]
    assert recorder.heard[8:] in ([("last.pt", 4)], [("best.safetensors", 4), ("last.pt", 4)])
    assert recorder.closed == 1
    assert all((event.steps, event.seconds > 0) == (4, True) for event in recorder.events)
    assert all(event.path.is_file() for event in recorder.events if isinstance(event, CheckpointEvent))
    assert run.folder == recorder.events[3].path.parent


def test_a_step_says_what_the_log_says(make_run: MakeRun) -> None:
    recorder = Recorder()
    run = recorded(make_run, recorder, steps=1, schedule__evaluations=1)
    step, evaluation = recorder.events[0], recorder.events[1]
    row, measured = read_log(run.folder)
    assert {name: getattr(step, name) for name in row if name not in ("kind", "epoch")} == {
        name: value for name, value in row.items() if name not in ("kind", "epoch")
    }
    assert step.epoch == 4 / 10
    assert step.loss == pytest.approx(sum(step.losses.values()))
    assert (evaluation.measure, evaluation.value, evaluation.best) == ("AP", measured["AP"], True)
    assert evaluation.metrics["AP50"] == measured["AP50"]


@pytest.mark.parametrize(
    ("stop_at", "steps"), [(("step", 2), 2), (("evaluation", 3), 3), (("last.pt", 3), 3), (("best.safetensors", 3), 3)]
)
def test_a_run_that_is_stopped_is_evaluated_and_saved(make_run: MakeRun, stop_at: tuple[str, int], steps: int) -> None:
    recorder = Recorder(stop_at)
    run = replace(make_run(steps=9, schedule__evaluations=3), callbacks=[recorder])
    progress = run_training(run)
    assert (progress.step, progress.steps) == (steps, 9)
    assert [step for kind, step in recorder.heard if kind == "evaluation"] == [steps]
    stored = torch.load(run.folder / "last.pt", weights_only=True)["progress"]
    assert stored["step"] == steps
    assert (run.folder / "best.safetensors").is_file()
    assert recorder.closed == 1


def test_a_stopped_run_can_go_on_and_ends_as_the_unbroken_one(make_run: MakeRun) -> None:
    whole = recorded(make_run, Recorder(), "whole", steps=4, schedule__evaluations=2)
    recorded(make_run, Recorder(("step", 2)), "broken", steps=4, schedule__evaluations=2)
    broken = make_run("broken", weights_seed=7, steps=4, schedule__evaluations=2)
    assert run_training(broken, resume=True).step == 4
    one, other = (torch.load(run.folder / "last.pt", weights_only=True) for run in (whole, broken))
    assert_equal(one, other)


def test_a_wish_to_stop_after_the_last_step_changes_nothing(make_run: MakeRun) -> None:
    recorder = Recorder(("step", 2))
    recorded(make_run, recorder, steps=2, schedule__evaluations=1)
    assert [kind for kind, _ in recorder.heard] == ["step", "step", "evaluation", "last.pt", "best.safetensors"]


def test_an_error_in_a_callback_ends_training_and_closes_all(make_run: MakeRun) -> None:
    class Broken(Callback):
        def on_step(self, event: StepEvent) -> None:
            raise OSError(f"the disk is full at step {event.step}")

    recorder = Recorder()
    run = replace(make_run(steps=3), callbacks=[recorder, Broken()])
    with pytest.raises(ValueError, match=r"^the disk is full at step 1; step 1 is saved in "):
        run_training(run)
    assert recorder.closed == 1


class TestEarlyStopping:
    @staticmethod
    def stops_at(values: list[float], **options: Any) -> int | None:
        """The number of the evaluation after which training is stopped, from 1."""
        callback, stop = EarlyStopping(**options), StopRequest()
        for i, value in enumerate(values, 1):
            state = {"step": i, "steps": 99, "seconds": 1.0, "stop": stop}
            callback.on_evaluation(EvaluationEvent(**state, metrics={}, measure="AP", value=value, best=False))
            if stop:
                assert stop.reason == f"AP has not risen for {callback.patience} evaluations"
                return i
        return None

    def test_it_waits_for_as_many_evaluations_as_it_is_told(self) -> None:
        assert self.stops_at([0.1, 0.2, 0.15, 0.2, 0.1], patience=2) == 4
        assert self.stops_at([0.1, 0.2, 0.15, 0.3, 0.2], patience=2) is None
        assert self.stops_at([0.1, 0.1], patience=1) == 2

    def test_a_rise_has_to_be_large_enough(self) -> None:
        assert self.stops_at([0.1, 0.105, 0.109], patience=2, min_delta=0.01) == 3
        assert self.stops_at([0.1, 0.105, 0.12], patience=2, min_delta=0.01) is None

    def test_patience_is_positive(self) -> None:
        with pytest.raises(ValueError, match="patience is at least 1, not 0"):
            EarlyStopping(patience=0)

    def test_it_stops_a_run(self, make_run: MakeRun) -> None:
        class Falling:
            num_images = 6

            def __init__(self) -> None:
                self.aps = iter((0.5, 0.4, 0.3, 0.2))

            def __call__(self, _detector: Any, _limit: int | None = None) -> dict[str, Any]:
                ap = next(self.aps)
                return {"AP": ap, "AP50": ap}

        run = replace(
            make_run(steps=4, schedule__evaluations=4), evaluate=Falling(), callbacks=[EarlyStopping(patience=2)]
        )
        progress = run_training(run)
        assert (progress.step, progress.best) == (3, 0.5)
