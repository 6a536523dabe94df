"""The pace of a run that has a budget of time: how many steps are left, planned again after each."""

from __future__ import annotations

import math
from dataclasses import dataclass

MEMORY_SHARE = 0.03
"""Fraction of the budget over which steps count for the present speed: more than the sizes of images vary in."""
MIN_MEMORY_STEPS = 6
"""Steps that it is at least: one with many objects, alone, does not make a machine slow."""
EVALUATION_SHARE = 0.08
"""Largest fraction of the budget that evaluations are planned to take."""
SAVING = 1.5
"""Times as long as the last checkpoint took is reserved for the next."""
FIRST_SAVING = 0.01
"""Fraction of the budget that is reserved for a checkpoint where none was written yet."""
UNSPENT = 0.04
"""Largest fraction of the budget that a run leaves unspent where a step and another evaluation fit into it."""


@dataclass
class Pace:
    """Speed of steps and evaluations, and the time that is left.

    Times are of ``time.monotonic()``, in seconds.

    Args:
        deadline: end of the budget.
        budget: all of it.
        step_seconds: of a step, measured before the first one.
        evaluation_seconds: of an evaluation, likewise.
    """

    deadline: float
    budget: float
    step_seconds: float
    evaluation_seconds: float

    def __post_init__(self) -> None:
        self._memory = max(MEMORY_SHARE * self.budget, MIN_MEMORY_STEPS * self.step_seconds)
        self._steps, self._seconds = 1.0, self.step_seconds
        # The speed at which the evaluation was measured: as much slower as steps become, so do evaluations.
        self._evaluated_at = self.step_seconds
        self._evaluating, self._saving = 0.0, FIRST_SAVING * self.budget / SAVING

    def add_step(self, seconds: float) -> None:
        """Take note of a step, its data included; older ones fade with the time that passes."""
        fading = math.exp(-seconds / self._memory)
        self._steps, self._seconds = self._steps * fading + 1, self._seconds * fading + seconds
        self.step_seconds = self._seconds / self._steps

    def add_evaluation(self, seconds: float) -> None:
        """Take note of an evaluation."""
        self.evaluation_seconds, self._evaluated_at = seconds, self.step_seconds
        self._evaluating += seconds

    def add_saving(self, seconds: float) -> None:
        """Take note of a checkpoint."""
        self._saving = seconds

    def count_steps_left(self, now: float, evaluations_left: int) -> int:
        """Return the steps that fit, beside evaluations and the last checkpoint, into what is left of the budget."""
        on_the_way = evaluations_left - 1 if self.affords_evaluation() else 0
        evaluations = (max(0, on_the_way) + min(1, evaluations_left)) * self._next_evaluation()
        left = self.deadline - now - evaluations - SAVING * self._saving
        # To the nearest step: the end is missed by half a step, on either side, rather than by a whole one.
        return max(0, round(left / self.step_seconds))

    def count_more_steps(self, now: float, evaluations: int) -> int:
        """Return the steps with which a run goes on that has come to its end, and made its last evaluation, too early.

        What the last evaluation takes is known when it is made. Where steps had become slower and evaluations had not,
        as where only reading is slow, more time was kept for it than it took.
        """
        too_early = self.deadline - now > UNSPENT * self.budget
        return self.count_steps_left(now, min(1, evaluations)) if too_early else 0

    def affords_evaluation(self) -> bool:
        """Tell if an evaluation on the way leaves enough time for steps.

        Evaluations were planned at the first speed. Where they have become slower, those on the way give way; the last
        one is always made.
        """
        return self._evaluating + 2 * self._next_evaluation() <= 2 * EVALUATION_SHARE * self.budget

    def _next_evaluation(self) -> float:
        return self.evaluation_seconds * self.step_seconds / self._evaluated_at
