"""Number of steps and evaluations of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from boxwright.compose.train_options import seconds, training_sizes
from boxwright.training.batches import batches_of_size
from boxwright.training.budget import Plan, measure_step, plan
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank, highest
from boxwright.training.pace import Pace
from boxwright.training.run import Run

MEASURING_SHARE = 0.03
"""Largest fraction of the budget that measuring steps may take."""

FEW_PASSES = 5
"""A run that sees its images fewer times than this hears that it learns little."""

MEASURED_IMAGES = 8
"""In an evaluation that is measured before training, for each process."""


def begin_progress(run: Run, rank: Rank) -> tuple[Progress, Pace | None]:
    """Plan the run that the options ask for, or that its budget allows; return its pace too where it has a budget.

    Raises:
        ValueError: the budget is too small.
    """
    options = run.options
    if options.budget is None:
        epoch_steps = -(-run.data.epoch_images * options.epochs // options.batch_size)
        steps = epoch_steps if options.steps is None else options.steps
        return Progress(step=0, steps=steps, evaluations=options.schedule.evaluations), None
    budget = seconds(options.budget)
    began = time.monotonic()
    per_step = measure_step(
        run.detector,
        partial(batches_of_size, run, rank),
        training_sizes(run.detector.input_format.image_size, options.batches.multi_scale),
        options,
        rank.device,
        teacher=run.teacher,
        is_enough=_agreed(lambda: time.monotonic() - began > MEASURING_SHARE * budget, rank),
    )
    per_evaluation = _measure_evaluation(run, rank) if options.schedule.evaluations else 0.0
    # The slowest process decides for all.
    per_step, per_evaluation, spent = highest(rank, per_step, per_evaluation, time.monotonic() - run.began)
    first = plan(budget - spent, per_step, per_evaluation, options.schedule.evaluations)
    _tell(run, first, per_step)
    pace = Pace(run.began + budget, budget, per_step, per_evaluation)
    return Progress(step=0, steps=first.steps, evaluations=first.evaluations), pace


def change_length(run: Run, rank: Rank, progress: Progress) -> None:
    """Plan a run that goes on with another length than the one that it began with.

    Raises:
        ValueError: more steps are done already.
    """
    options = run.options
    if options.budget is None or progress.step == 0:
        planned = begin_progress(run, rank)[0]
        progress.change_length(planned.steps, planned.evaluations)
        return
    # At the speed so far; what it is now is known after the first steps.
    affordable = round(seconds(options.budget) / progress.seconds * progress.step)
    was_finished = progress.is_finished
    progress.change_length(max(progress.step, affordable), options.schedule.evaluations)
    progress.evaluation_due |= not was_finished and progress.step == progress.steps


def resume_pace(run: Run, progress: Progress) -> Pace | None:
    """Return the pace of a run that goes on, as it was so far; None where it has no budget."""
    if run.options.budget is None:
        return None
    budget = seconds(run.options.budget)
    per_step = progress.seconds / progress.step if progress.step else budget / progress.steps
    return Pace(run.began + budget - progress.seconds, budget, per_step, progress.evaluation_seconds)


def _agreed(test: Callable[[], bool], rank: Rank) -> Callable[[], bool]:
    return lambda: highest(rank, test())[0] > 0


def _tell(run: Run, first: Plan, per_step: float) -> None:
    """Say what the budget buys."""
    count = run.data.epoch_images
    passes = first.steps * run.options.batch_size / count
    some = f"{passes:.0f}" if passes >= 10 else f"{passes:.1f}"
    if run.console is not None:
        run.console.print(
            f"{per_step:.2f} s a step: about {first.steps} steps, {some} passes over {count} images, and "
            f"{first.evaluations} evaluations fit into {run.options.budget}",
            highlight=False,
            soft_wrap=True,
        )
    if passes < FEW_PASSES and run.initial_weights is None:
        more = _in_words(seconds(run.options.budget or "") * FEW_PASSES / passes)
        run.note(
            f"from random weights that is too little to learn much: give --train.budget {more}, or begin with --weights"
        )


def _in_words(duration: float) -> str:
    """Round a duration up to whole minutes or hours, as a budget is written."""
    return f"{-int(-duration // 60)}m" if duration < 5400 else f"{-int(-duration // 3600)}h"


def _measure_evaluation(run: Run, rank: Rank) -> float:
    """Seconds of an evaluation, from the first few images for each process.

    What is done once, as a copy of the detector, is in the time of one image too, and is not multiplied.
    """
    evaluate = run.evaluate
    if evaluate is None:
        return 0.0
    images = min(MEASURED_IMAGES * rank.world_size, evaluate.num_images)

    def measure(limit: int) -> float:
        start = time.monotonic()
        evaluate(run.detector, limit=limit)
        return time.monotonic() - start

    measure(1)  # what only the first image of all takes
    one = measure(1)
    if images <= 1:
        return one
    return one + max(0.0, measure(images) - one) / (images - 1) * (evaluate.num_images - 1)
