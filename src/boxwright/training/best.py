"""The rule of which evaluation of a run is the best one."""

from __future__ import annotations

from typing import NamedTuple

from boxwright.training.checkpoint import Progress


class Verdict(NamedTuple):
    """The outcome of an evaluation.

    Args:
        best: its weights are the best ones so far.
        line: to be said about it, where the measure alone does not decide; None where there is nothing to say.
    """

    best: bool
    line: str | None = None


def judge_evaluation(progress: Progress, measure: str, value: float) -> Verdict:
    """Decide whether the weights at ``progress.step`` are the best ones, and take note of it in ``progress``.

    Higher is better. Where the value is equal to the best one, or where neither is defined, as AP is not without any
    object, the later weights count. A defined value is better than an undefined one, whatever the order.

    Args:
        progress: of the run; knows value and step of the best evaluation before this one.
        measure: name of what is measured: AP, mask AP or top-1.
        value: of this evaluation; negative or not a number where undefined.
    """
    is_defined, was_defined = value >= 0, progress.best_step > 0 and progress.best >= 0
    if is_defined != was_defined or progress.best_step == 0:
        is_best, is_tie = is_defined or progress.best_step == 0, False
    else:
        is_tie = not is_defined or value == progress.best
        is_best = is_tie or value > progress.best
    line = None
    # A run that goes on from before its best evaluation makes that one again, which is no tie.
    if is_tie and progress.best_step != progress.step:
        progress.ties += 1
        line = _describe_tie(progress, measure, value) if progress.ties == 1 else None
    elif not is_defined and progress.best_step == 0:
        line = f"{measure} is undefined on the validation split, which has no objects: the latest weights are the best"
    if is_best:
        progress.measure, progress.best, progress.best_step = measure, value if is_defined else -1.0, progress.step
    return Verdict(is_best, line)


def take_latest(progress: Progress) -> None:
    """Count the weights at ``progress.step`` as the best ones, as where there is no validation split."""
    progress.best_step = progress.step


def _describe_tie(progress: Progress, measure: str, value: float) -> str | None:
    if not value > 0:
        return None  # undefined, which was said at the first evaluation, or nothing is found yet
    return (
        f"{measure} is {value:.3f} at step {progress.step} as at step {progress.best_step}: of equal values the later "
        "weights are the best"
    )
