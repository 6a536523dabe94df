"""Batches that fit into memory: measured before training, and cut into accumulated parts where they do not."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipe_text import flatten
from boxwright.data.records import DetectionData, max_objects
from boxwright.data.size_survey import SIZE_STEP
from boxwright.training.batches import CACHE_BYTES
from boxwright.training.distributed import Rank, highest, init_distributed
from boxwright.training.run import Run
from boxwright.workflows.fit_trial import SAFETY, Trial, count_fitting, extrapolate
from boxwright.workflows.memory_limits import RESERVE_BYTES, FreeMemory, free_memory, resident_memory
from boxwright.workflows.observer import Observer
from boxwright.workflows.saved_memory import COPIES_OF_WEIGHTS, count_saved_bytes
from boxwright.workflows.worst_step import TrialOutcome, find_worst_step, make_trial, run_in_process

TRIAL_SECONDS = 120.0
"""Time that the trial may take; on an idle machine it is a tenth of that."""

KEPT_FACTOR, OVERHEAD_BYTES = 2, 2**29
"""Upper estimate of a step from what one image keeps for the backward pass. Measured over eight recipes of all families
on a CPU, each further image takes 0.6 to 1.8 times that."""

NO_ROOM = 2**20
"""Stands for the number of parts, among processes that agree on it, where one of them has no room at all."""


class Room(NamedTuple):
    """Measured room for the worst step.

    Args:
        images: that fit at once; 0 where not even one does.
        least: images that are needed at once: 2 where one alone cannot be normalized.
        one: bytes for the fewest images, and for decoded ones that are kept; None where memory ran out before.
        needed: bytes for all images that go through the network together; None likewise.
        capacity: what this process may have.
        input_size: (height, width) of the padded batch.
        smaller: an image size of which one image fits; None where none is known.
    """

    images: int
    least: int
    one: int | None
    needed: int | None
    capacity: FreeMemory
    input_size: tuple[int, int]
    smaller: int | None = None


def fit_batch(run: Run, *, is_fixed: bool, observer: Observer, memory: FreeMemory | None = None) -> Run:
    """Make sure that the worst step of a run fits into memory; where its batch does not, cut it into parts.

    What one image keeps for the backward pass is counted first; where all images together clearly fit, that is all.
    Otherwise steps of one image and of two are made in a process of its own, and the batch is extrapolated from them.
    Neither changes the detector, its norms' statistics or any random number of training. Of several processes the
    first on each machine measures, for its part of the batch and of the memory; the smallest room counts for all.

    Args:
        run: about to begin, or to go on.
        is_fixed: the number of parts was typed, or the run has one already: it stays, and a note says what would fit.
        observer: hears notes, and what is measured where that takes a while.
        memory: free memory of the machine; what is free now where None.

    Returns:
        The run; with a higher ``train.batches.accumulate_steps``, and a note, where its batch is cut.

    Raises:
        ValueError: not even one image fits, in one line with what to change.
    """
    rank = init_distributed(run.options.runtime.device)
    room = None
    if int(os.environ.get("LOCAL_RANK", "0")) == 0:
        room = measure_room(run, rank, observer, memory)
    options = run.options
    parts = 1 if room is None else _choose_parts(options.batch_size, rank.world_size, room)
    parts = int(highest(rank, max(parts, options.batches.accumulate_steps))[0])
    if parts >= NO_ROOM:
        raise ValueError(_describe_no_room(run, room))
    if parts == options.batches.accumulate_steps:
        return run
    if rank.is_first:
        observer.note(_describe_parts(run, rank, room, parts, is_fixed=is_fixed))
    return run if is_fixed else _with_parts(run, parts)


def is_parts_typed(overrides: Mapping[str, Any] | None) -> bool:
    """Tell whether overrides of a recipe say in how many parts a batch goes through the network."""
    typed = {name.replace("-", "_"): value for name, value in flatten(overrides or {}).items()}
    groups = (str(typed.get(group, "")) for group in ("train", "train.batches"))
    return "train.batches.accumulate_steps" in typed or any("accumulate_steps" in group for group in groups)


def measure_room(run: Run, rank: Rank, observer: Observer, memory: FreeMemory | None = None) -> Room | None:
    """Measure how many images of the worst step fit at once; None where all clearly do, or nobody can tell."""
    recipe, device = _recipe_of_process(run.recipe, rank.world_size), rank.device
    together = recipe.train.batch_size
    capacity = _capacity(device, memory)
    if capacity is None or not run.data.records:
        return None
    worst = find_worst_step(run.data, recipe)
    trial = make_trial(run.data, recipe, worst, device, capacity.bytes - resident_memory(), TRIAL_SECONDS)
    trial = replace(trial, with_whole=False)
    cache = _cache_bytes(run.data, device)
    if _clearly_fits(run, trial, together, capacity.bytes - cache):
        return None
    observer.announce(
        f"measuring the memory of a step, {worst.input_size[1]} x {worst.input_size[0]} pixels on {device}"
    )
    outcome = run_in_process(trial)
    if outcome.gpu_capacity is not None:
        capacity = FreeMemory(outcome.gpu_capacity, "GPU")
    if len(outcome.stages) < 2 and not outcome.is_out_of_memory:
        observer.note(f"the memory of a step could not be measured: {outcome.failure or 'it took too long'}")
        return None
    return _read_room(outcome, together, capacity, cache, worst.input_size, recipe.input.image_size)


def _recipe_of_process(recipe: Recipe, world_size: int) -> Recipe:
    """Return the recipe with the images that go through the network of one process together as its batch."""
    options = recipe.train
    per_process = -(-options.batch_size // world_size)
    batches = replace(options.batches, accumulate_steps=1)
    together = -(-per_process // options.batches.accumulate_steps)
    return replace(recipe, train=replace(options, batch_size=together, batches=batches))


def _capacity(device: torch.device, memory: FreeMemory | None) -> FreeMemory | None:
    """Return the bytes that this process may have in all, what it has already included."""
    if device.type == "cuda":
        return memory or FreeMemory(torch.cuda.mem_get_info(device)[0], "GPU")
    free = memory or free_memory()
    if free is None:
        return None
    sharing = max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return FreeMemory(max(0, free.bytes - RESERVE_BYTES) // sharing + resident_memory(), free.owner)


def _cache_bytes(data: DetectionData, device: torch.device) -> int:
    """Return the memory that decoded images take in the end, where it is the same as that of the network."""
    return 0 if device.type == "cuda" else min(CACHE_BYTES, sum(3 * r.height * r.width for r in data.records))


def _clearly_fits(run: Run, trial: Trial, together: int, available: int) -> bool:
    """Tell whether an upper estimate is below what is available, at the cost of one image's forward pass."""
    used = 0 if torch.device(trial.device).type == "cuda" else resident_memory()
    weights = sum(one.numel() * one.element_size() for one in (*run.detector.parameters(), *run.detector.buffers()))
    height, width = trial.input_size
    inputs = together * 4 * 3 * height * width * 2
    left = available - used - COPIES_OF_WEIGHTS * weights - OVERHEAD_BYTES - inputs
    limit = left // (KEPT_FACTOR * together)
    if limit <= 0:
        return False
    precision = run.options.runtime.precision
    return count_saved_bytes(run.detector, trial, precision, limit) is not None


def _read_room(
    outcome: TrialOutcome,
    together: int,
    capacity: FreeMemory,
    cache: int,
    input_size: tuple[int, int],
    image_size: int,
) -> Room:
    stages, available = outcome.stages, capacity.bytes - cache
    least = stages[1].images if len(stages) > 1 else 1
    one = stages[1].peak if len(stages) > 1 else None
    images = count_fitting(stages, available) or 0
    if outcome.is_out_of_memory:
        # Twice as many were tried next, in vain.
        images = min(images, 2 * least - 1) if one is not None else 0
    if one is not None and one <= available:
        images = max(images, least)  # measured, without any margin
    expected = extrapolate(stages, together, memory=True)
    needed = None if expected is None or one is None else int(expected * SAFETY) + cache
    smaller, base = None, stages[0].peak if stages else None
    if one is not None and base is not None and one > base:
        fraction = max(0.0, available / SAFETY - base) * least / (one - base)
        smaller = int(image_size * math.sqrt(fraction)) // SIZE_STEP * SIZE_STEP
    one = None if one is None else one + cache
    return Room(images, least, one, needed, capacity, input_size, smaller or None)


def _choose_parts(batch_size: int, world_size: int, room: Room) -> int:
    """Return the smallest divisor of the batch with which its parts have room."""
    per_process = -(-batch_size // world_size)
    for parts in range(1, batch_size + 1):
        at_once = -(-per_process // parts)
        if batch_size % parts == 0 and at_once <= room.images:
            return parts if at_once >= min(room.least, per_process) else NO_ROOM
    return NO_ROOM


def _with_parts(run: Run, parts: int) -> Run:
    options = run.options
    batches = replace(options.batches, accumulate_steps=parts)
    recipe = replace(run.recipe, train=replace(options, batches=batches))
    run.detector.recipe = recipe
    return replace(run, recipe=recipe)


def _describe_parts(run: Run, rank: Rank, room: Room | None, parts: int, *, is_fixed: bool) -> str:
    per_process = -(-run.options.batch_size // rank.world_size)
    together, at_once = (-(-per_process // count) for count in (run.options.batches.accumulate_steps, parts))
    lacks = "do not fit into memory at once, as another process measured"
    if room is not None:
        needed = "more memory than there is" if room.needed is None else _gib(room.needed)
        lacks = f"need {needed} at once, of {_gib(room.capacity.bytes)} ({room.capacity.owner})"
    what = f"{together} images of a step {lacks}"
    if is_fixed:
        return f"{what}, so that training may end there; --train.batches.accumulate_steps {parts} has room"
    has_norms = any(isinstance(one, _BatchNorm) and one.training for one in run.detector.modules())
    but = f", but for batch norms, whose statistics are of {at_once} images" if has_norms else ""
    return (
        f"{what}: they go through the network in parts of {at_once} (train.batches.accumulate_steps {parts}), with the "
        f"same gradient{but}"
    )


def _describe_no_room(run: Run, room: Room | None) -> str:
    smaller = "" if room is None or room.smaller is None else f" {room.smaller}"
    advice = f"give a smaller --image-size{smaller or ' N'}, or take a smaller recipe"
    if room is None:
        return f"a step does not fit into memory, as another process measured: {advice}"
    height, width = room.input_size
    needs = "more memory than there is" if room.one is None else _gib(room.one)
    one_is_enough = room.least == 1
    some = "one image" if one_is_enough else f"the {room.least} images that batch norms have to see at once"
    verb = "needs" if one_is_enough else "need"
    return (
        f"{some} of {width} x {height} pixels, with up to {max_objects(run.data)} objects, {verb} {needs}, and this "
        f"process may have {_gib(room.capacity.bytes)} ({room.capacity.owner}): {advice}"
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
