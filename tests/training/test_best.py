"""The rule of the best evaluation: higher, later where equal or undefined, and it is said once."""

from __future__ import annotations

import math

import pytest

from boxwright.training.best import judge_evaluation, take_latest
from boxwright.training.checkpoint import Progress


def judge(values: list[float], progress: Progress | None = None) -> tuple[list[bool], list[str], Progress]:
    """Evaluate after each step; return which were the best, what was said, and how it ended."""
    progress = progress or Progress(step=0, steps=len(values), evaluations=len(values))
    verdicts = []
    for value in values:
        progress.step += 1
        verdicts.append(judge_evaluation(progress, "AP", value))
    return [one.best for one in verdicts], [one.line for one in verdicts if one.line is not None], progress


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([0.1, 0.3, 0.2], [True, True, False]),
        ([0.0, 0.0, 0.1], [True, True, True]),
        ([0.3, 0.3, 0.2, 0.3], [True, True, False, True]),
        ([-1.0, -1.0], [True, True]),
        ([math.nan, math.nan], [True, True]),
        ([-1.0, 0.0], [True, True]),
        ([0.0, -1.0, math.nan], [True, False, False]),
    ],
)
def test_the_best(values: list[float], best: list[bool]) -> None:
    verdicts, _, progress = judge(values)
    assert verdicts == best
    assert progress.best_step == max(step for step, is_best in enumerate(best, 1) if is_best)
    value = values[progress.best_step - 1]
    assert progress.best == (value if value >= 0 else -1.0)


def test_a_tie_is_said_once() -> None:
    _, lines, progress = judge([0.3, 0.3, 0.1, 0.3])
    assert lines == ["AP is 0.300 at step 2 as at step 1: of equal values the later weights are the best"]
    assert progress.ties == 2


@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_undefined_values_are_said_once(value: float) -> None:
    _, lines, _ = judge([value, value, value])
    assert lines == ["AP is undefined on the validation split, which has no objects: the latest weights are the best"]


def test_the_same_evaluation_once_more_is_no_tie() -> None:
    """Of a run that was killed between its best and its last checkpoint."""
    progress = Progress(step=3, steps=9, evaluations=9, best=0.3, best_step=4)
    verdicts, lines, progress = judge([0.3], progress)
    assert (verdicts, lines, progress.ties, progress.best_step) == ([True], [], 0, 4)


def test_without_a_validation_the_latest_counts() -> None:
    progress = Progress(step=3, steps=9, evaluations=9)
    take_latest(progress)
    assert (progress.best, progress.best_step) == (-1.0, 3)
