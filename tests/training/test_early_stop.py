"""``train.schedule.early_stop``: runs end where they do not become better, interrupted on the way or not."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from boxwright.checkpoints import LAST, read_checkpoint
from boxwright.compose.train_options import ScheduleOptions
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.checkpoint import Progress
from boxwright.training.early_stop import count_evaluation
from boxwright.training.interrupt import Interrupted
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from equality import assert_equal

MakeRun = Callable[..., Run]

APS = (0.2, 0.5, 0.4, 0.5, 0.3, 0.9)
OPTIONS: dict[str, Any] = {"steps": 6, "schedule__evaluations": 6, "schedule__early_stop": 3}


class Values:
    """A validation that measures these values, one after the other."""

    num_images = 6

    def __init__(self, aps: tuple[float, ...]) -> None:
        self.aps = iter(aps)

    def __call__(self, _detector: Any, _limit: int | None = None) -> dict[str, Any]:
        ap = next(self.aps)
        return {"AP": ap, "AP50": ap}


class Interrupts(Callback):
    def __init__(self, *steps: int) -> None:
        self.steps = steps

    def on_step(self, event: StepEvent) -> None:
        if event.step in self.steps:
            signal.raise_signal(signal.SIGINT)


def test_three_evaluations_without_a_better_value_end_the_run(make_run: MakeRun) -> None:
    console = Console(file=io.StringIO(), width=200)
    progress = run_training(replace(make_run(**OPTIONS), evaluate=Values(APS), console=console))
    assert (progress.step, progress.best, progress.evaluations_without_rise) == (5, 0.5, 3)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert "AP has not risen for 3 evaluations: the run ends (train.schedule.early_stop 3)" in printed


def test_zero_never_does(make_run: MakeRun) -> None:
    progress = run_training(replace(make_run(**OPTIONS | {"schedule__early_stop": 0}), evaluate=Values(APS)))
    assert (progress.step, progress.best) == (6, 0.9)


def test_a_run_that_was_interrupted_ends_at_the_same_step(make_run: MakeRun) -> None:
    whole = make_run("whole", **OPTIONS)
    run_training(replace(whole, evaluate=Values(APS)))
    # The evaluation of the step in which it is interrupted is made when it goes on.
    for part, step in enumerate((3, 4)):
        run = replace(make_run("broken", **OPTIONS), evaluate=Values(APS[2 * part :]), callbacks=[Interrupts(step)])
        with pytest.raises(Interrupted):
            run_training(run, resume=part > 0)
    progress = run_training(replace(make_run("broken", **OPTIONS), evaluate=Values(APS[3:])), resume=True)
    assert progress.step == 5
    assert_equal(read_checkpoint(make_run("broken").folder / LAST), read_checkpoint(whole.folder / LAST))
    # Ended, it stays so.
    progress = run_training(replace(make_run("broken", **OPTIONS), evaluate=Values(())), resume=True)
    assert progress.step == 5


def test_an_undefined_measure_does_not_count() -> None:
    progress = Progress(step=1, steps=9, evaluations=9, best=0.3)
    for value, count in ((-1.0, 0), (0.3, 1), (-1.0, 1), (0.2, 2), (0.4, 0)):
        count_evaluation(progress, value)
        assert progress.evaluations_without_rise == count


def test_the_best_evaluation_made_again_does_not_count() -> None:
    """As by a run that was killed between writing its best weights and its last checkpoint."""
    progress = Progress(step=3, steps=9, evaluations=9, best=0.3, best_step=3, evaluations_without_rise=1)
    count_evaluation(progress, 0.3)
    assert progress.evaluations_without_rise == 1


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train\.schedule\.early_stop is at least 0, not -1"):
        ScheduleOptions(early_stop=-1)
