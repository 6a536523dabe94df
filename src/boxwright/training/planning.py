"""Number of steps and evaluations of a run."""

from __future__ import annotations

import time
from functools import partial

from boxwright.compose.train_options import seconds, training_sizes
from boxwright.training.batches import batches_of_size
from boxwright.training.budget import Plan, measure_step, plan
from boxwright.training.distributed import Rank
from boxwright.training.run import Run

MEASURING_SHARE = 0.03
"""Largest fraction of the budget that measuring steps may take."""


def plan_run(run: Run, rank: Rank) -> Plan:
    """The steps and evaluations that the run's options ask for, or that its budget allows.

    Raises:
        ValueError: the budget is too small, or cannot be measured.
    """
    options = run.options
    if options.steps is not None:
        return Plan(options.steps, options.schedule.evaluations)
    if options.budget is None:
        steps = -(-len(run.data.records) * options.epochs // options.batch_size)
        return Plan(steps, options.schedule.evaluations)
    if rank.world_size > 1:
        raise ValueError("train.budget measures one process; with several, give train.epochs or train.steps")
    allowed = seconds(options.budget)
    per_step = measure_step(
        run.detector,
        partial(batches_of_size, run, rank),
        training_sizes(run.detector.input_format.image_size, options.batches.multi_scale),
        options,
        rank.device,
        limit=MEASURING_SHARE * allowed,
    )
    per_evaluation = _measure_evaluation(run)
    fixed = plan(allowed - (time.monotonic() - run.began), per_step, per_evaluation, options.schedule.evaluations)
    if run.console is not None:
        run.console.print(
            f"{per_step:.2f} s a step: {fixed.steps} steps and {fixed.evaluations} evaluations fit into "
            f"{options.budget}",
            highlight=False,
        )
    return fixed


def _measure_evaluation(run: Run) -> float:
    """Seconds of an evaluation, from the first few images."""
    if run.evaluate is None:
        return 0.0
    images = min(8, run.evaluate.num_images)
    start = time.monotonic()
    run.evaluate(run.detector, limit=images)
    return (time.monotonic() - start) * run.evaluate.num_images / max(1, images)
