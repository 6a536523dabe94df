"""A budget of time is kept at any speed: pace, plan and schedule together, on a machine whose clock the test winds."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count, cycle, pairwise, product
from typing import NamedTuple

import pytest

from boxwright.compose.train_options import ScheduleOptions, TrainOptions
from boxwright.training.budget import plan
from boxwright.training.checkpoint import Progress
from boxwright.training.pace import Pace
from boxwright.training.schedule import Schedule

SIZES = (0.6, 1.0, 1.4)
"""Sizes of images vary, and with them the time of a step."""


class Machine:
    """Time passes in steps, evaluations and checkpoints.

    Args:
        changes: (time, slowness from then on), in order.
    """

    def __init__(self, changes: list[tuple[float, float]]) -> None:
        self.now, self.slowness, self.changes = 0.0, 1.0, list(changes)

    def work(self, seconds: float) -> float:
        """Let work take its time; return that."""
        start = self.now
        while self.changes and self.changes[0][0] <= self.now + seconds * self.slowness:
            moment, slowness = self.changes.pop(0)
            done = max(0.0, moment - self.now) / self.slowness
            self.now, seconds, self.slowness = max(self.now, moment), seconds - done, slowness
        self.now += seconds * self.slowness
        return self.now - start


class Trained(NamedTuple):
    """A run.

    Args:
        progress: of it, at its end.
        positions: before each step, and after the last one.
        evaluated: steps of evaluations.
        longest: what nobody can foresee: the longest step, evaluation and checkpoint together, in seconds.
    """

    progress: Progress
    positions: list[float]
    evaluated: list[int]
    longest: float


def train(
    budget: float,
    machine: Machine,
    *,
    step: float,
    evaluation: float,
    evaluations: int = 10,
    sizes: Iterable[float] = SIZES,
    saving: float = 0.3,
    slows_evaluations: bool = True,
) -> Trained:
    """Train as the loop does."""
    first = plan(budget, step, evaluation, evaluations)
    progress = Progress(step=0, steps=first.steps, evaluations=first.evaluations)
    pace = Pace(budget, budget, step, evaluation)
    schedule = Schedule(progress.length, TrainOptions(schedule=ScheduleOptions(evaluations=evaluations)), 100)
    positions, evaluated, sizes, longest = [], [], cycle(sizes), [0.0, 0.0, 0.0]

    def note_time(kind: int, seconds: float) -> float:
        longest[kind] = max(longest[kind], seconds)
        return seconds

    while progress.step < progress.steps:
        before = progress.position(progress.step)
        positions.append(before)
        pace.add_step(note_time(0, machine.work(step * next(sizes))))
        progress.step += 1
        ends = progress.step >= progress.steps
        if not ends:
            done = int(progress.position(progress.step) * progress.evaluations // progress.length)
            left = max(progress.evaluations - done, min(1, progress.evaluations))
            progress.plan_anew(pace.count_steps_left(machine.now, left))
            ends = progress.step >= progress.steps
        now = progress.position(progress.step)
        if ends or (schedule.evaluates_between(before, now, progress.evaluations) and pace.affords_evaluation()):
            seconds = evaluation if slows_evaluations else evaluation / machine.slowness
            pace.add_evaluation(note_time(1, machine.work(seconds)))
            evaluated.append(progress.step)
            pace.add_saving(note_time(2, machine.work(saving)))
        if ends:
            progress.plan_anew(pace.count_more_steps(machine.now, progress.evaluations))
    positions.append(progress.position(progress.step))
    return Trained(progress, positions, evaluated, sum(longest))


@pytest.mark.parametrize("evaluation", [0.0, 3.0, 20.0])
@pytest.mark.parametrize(("budget", "step"), [(600.0, 1.0), (60.0, 0.05), (7200.0, 20.0)])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], id="steady"),
        pytest.param([(0.5, 3.0)], id="slower from the middle on"),
        pytest.param([(0.5, 1 / 3)], id="faster from the middle on"),
        pytest.param([(0.0, 3.0)], id="measured too fast"),
        pytest.param([(0.0, 1 / 3)], id="measured too slow"),
        pytest.param([(0.2, 3.0), (0.4, 1.0), (0.6, 2.0), (0.8, 0.7)], id="up and down"),
    ],
)
def test_a_budget_is_kept_within_a_twentieth(
    changes: list[tuple[float, float]], budget: float, step: float, evaluation: float
) -> None:
    """With the whole of the schedule, and the last step evaluated."""
    machine = Machine([(fraction * budget, slowness) for fraction, slowness in changes])
    evaluation *= budget / 600
    progress, positions, evaluated, _ = train(budget, machine, step=step, evaluation=evaluation)
    assert machine.now == pytest.approx(budget, rel=0.05)
    assert positions[-1] == progress.length
    # Nothing of the schedule is skipped: no step goes through more than a twentieth of it.
    assert max(later - earlier for earlier, later in pairwise(positions)) <= progress.length / 20
    assert all(later > earlier for earlier, later in pairwise(positions))
    assert evaluated[-1] == progress.step
    assert len(evaluated) <= progress.evaluations


def test_evaluations_on_the_way_give_way_on_a_slow_machine() -> None:
    """At three times the time each, all of them would take a quarter."""
    slow, quick = Machine([(60.0, 3.0)]), Machine([])
    counts = [len(train(600.0, machine, step=1.0, evaluation=4.5).evaluated) for machine in (slow, quick)]
    assert counts[1] == 10
    assert 2 <= counts[0] < 10


def test_a_position_is_the_step_where_the_length_is_fixed() -> None:
    progress = Progress(step=3, steps=7, evaluations=1)
    assert [progress.position(step) for step in range(9)] == [0, 1, 2, 3, 4, 5, 6, 7, 7]


def test_a_new_plan_goes_through_what_is_left() -> None:
    progress = Progress(step=4, steps=10, evaluations=1)
    progress.plan_anew(3)
    assert (progress.steps, progress.length) == (7, 10)
    assert [progress.position(step) for step in (4, 5, 6, 7)] == pytest.approx([4, 6, 8, 10])
    progress.step = 5
    progress.plan_anew(0)
    assert (progress.steps, progress.position(5)) == (5, 10)


def test_the_speed_is_that_of_late() -> None:
    pace = Pace(deadline=1000.0, budget=1000.0, step_seconds=1.0, evaluation_seconds=6.0)
    for _ in range(60):
        pace.add_step(3.0)
    # 30 s count: after 180 s the first second is forgotten.
    assert pace.step_seconds == pytest.approx(3.0, rel=0.01)
    # An evaluation takes three times as long, too, and a checkpoint a hundredth: (1000 - 400 - 18 - 10) / 3
    assert pace.count_steps_left(400.0, 1) == pytest.approx(191, abs=1)
    assert pace.count_steps_left(400.0, 0) == pytest.approx(197, abs=1)
    assert pace.count_steps_left(1200.0, 1) == 0


CHANGES: dict[str, list[tuple[float, float]]] = {
    "steady": [],
    "slower": [(0.5, 3.0)],
    "faster": [(0.5, 1 / 3)],
    "slower, then back": [(0.33, 3.0), (0.66, 1.0)],
    "faster, then back": [(0.33, 1 / 3), (0.66, 1.0)],
    "faster, then slower": [(0.3, 1 / 3), (0.6, 3.0)],
    "slower near the end": [(0.9, 3.0)],
    "faster near the end": [(0.9, 1 / 3)],
    "measured too fast": [(0.0, 3.0)],
    "measured too slow": [(0.0, 1 / 3)],
    "seven times": [(number / 7, 3.0 if number % 2 else 1.0) for number in range(1, 7)],
    "twenty times": [(number / 20, 3.0 if number % 2 else 1.0) for number in range(1, 20)],
}

MASKS = (0.3, 0.35, 0.45, 0.5, 0.6, 0.9, 1.2, 3.7)
"""Times of steps where some images have far more objects than others."""


@pytest.mark.parametrize("changes", CHANGES)
def test_a_budget_is_kept_where_what_nobody_foresees_is_short(changes: str) -> None:
    """Any lengths of steps and evaluations, evaluations that do not become slower with steps, and rare long steps."""
    kept = 0
    cases = product((1 / 1000, 1 / 200, 1 / 60), (0, 0.002, 0.01, 0.02, 0.04), (0, 1, 3, 10), (SIZES, MASKS))
    for number, (step, evaluation, evaluations, sizes) in enumerate(cases):
        for slows_evaluations in (True, False):
            machine = Machine([(fraction * 600, slowness) for fraction, slowness in CHANGES[changes]])
            draw = random.Random(number)
            run = train(
                600.0,
                machine,
                step=600 * step,
                evaluation=600 * evaluation if evaluations else 0.0,
                evaluations=evaluations,
                sizes=(draw.choice(sizes) for _ in count()),
                saving=2.0,
                slows_evaluations=slows_evaluations,
            )
            if run.longest < 0.05 * 600:
                kept += 1
                assert machine.now == pytest.approx(600, rel=0.05), (step, evaluation, evaluations, slows_evaluations)
    assert kept > 60
