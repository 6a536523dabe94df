"""Advice to train with activation checkpointing, with the memory that it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from boxwright.compose.recipe import Recipe
from boxwright.workflows.fit_trial import SAFETY, Stage, Trial, extrapolate
from boxwright.workflows.worst_step import TrialOutcome

WORTH_TRYING = 0.95
"""Largest fraction of the memory without it that is worth more time for each step."""


def advise_checkpointing(
    trial: Trial, stages: tuple[Stage, ...], available: int, run: Callable[[Trial], TrialOutcome]
) -> Iterator[str]:
    """Suggest activation checkpointing where steps of one image and of two with it need less memory.

    Args:
        trial: of the step that does not fit.
        stages: of that trial.
        available: bytes for the step.
        run: runs a trial.
    """
    recipe = Recipe.from_dict(trial.recipe)
    options = recipe.train
    together = -(-options.batch_size // options.batches.accumulate_steps)
    before = extrapolate(stages, together, memory=True)
    if options.batches.activation_checkpointing or before is None:
        return
    batches = replace(options.batches, activation_checkpointing=True)
    changed = replace(recipe, train=replace(options, batches=batches))
    needed = extrapolate(run(replace(trial, recipe=changed.to_dict())).stages, together, memory=True)
    if needed is None or needed > WORTH_TRYING * before:
        return
    enough = "" if needed * SAFETY <= available else "; not enough alone"
    yield (
        f"--train.batches.activation_checkpointing true: {_gib(needed * SAFETY)} instead of {_gib(before * SAFETY)} "
        f"and the same gradient, in more time{enough}"
    )


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
