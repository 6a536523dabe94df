"""The size of images and batches that a demo can train with in its time, and in how many processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.devices import choose_device
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.training.budget import measure_step
from boxwright.training.step import resolve_precision

SECONDS_OF_A_SIZE = 4.0
"""Longest time that is measured for each size."""

NUM_NOISE_CLASSES = 6


class DemoSize(NamedTuple):
    """Images and batches, and the learning rate that goes with them."""

    image_size: int
    batch_size: int
    lr: float


DEMO_SIZES = (DemoSize(160, 16, 1.6e-3), DemoSize(128, 8, 1.1e-3))
"""From the best to the fastest. At 96 pixels a step of 8 images takes as long as at 128."""

LEAST_DEMO_STEPS = 400
"""Steps that a size is taken for: with fewer, a smaller one comes further."""

SLOWER_TOGETHER = 1.25
"""Factor by which two processes, on a core each, are slower than one of them alone: they have one memory."""


def count_processes(device: str) -> int:
    """Count the processes that a demo takes: two where two cores or more compute, and else one.

    On two cores with another program on one of them, two processes of one thread made 77 steps in a minute, two threads
    of one process 47; on quiet ones, in four minutes, 481 and 441.

    Args:
        device: as in ``RuntimeOptions``.
    """
    is_one = os.name != "posix" or choose_device(device).type != "cpu" or torch.get_num_threads() < 2
    return 1 if is_one else 2


def choose_size(recipe: Recipe, seconds: float) -> Recipe:
    """Return the recipe with the first of ``DEMO_SIZES`` that makes enough steps in the time, or else with the last.

    A few steps of each are measured, on noise; of several processes, those of one.

    Args:
        recipe: of a detector.
        seconds: for training.
    """
    for size in DEMO_SIZES[:-1]:
        sized = _with_size(recipe, size)
        if seconds / _measure(sized) >= LEAST_DEMO_STEPS:
            return sized
    return _with_size(recipe, DEMO_SIZES[-1])


def _with_size(recipe: Recipe, size: DemoSize) -> Recipe:
    return replace(
        recipe,
        input=replace(recipe.input, image_size=size.image_size),
        train=replace(recipe.train, batch_size=size.batch_size, lr=size.lr),
    )


def _measure(recipe: Recipe) -> float:
    """Measure the seconds of a step."""
    processes, threads = recipe.train.runtime.processes, torch.get_num_threads()
    part = recipe.train.batch_size // processes
    began, device = time.monotonic(), choose_device(recipe.train.runtime.device)
    side, categories = recipe.input.image_size, [Category(i, str(i)) for i in range(NUM_NOISE_CLASSES)]
    torch.set_num_threads(max(1, threads // processes))
    try:
        alone = measure_step(
            build_resolved(recipe, categories=categories).to(device),
            lambda size: _draw_noise(size, part),
            (side,),
            resolve_precision(recipe.train, device),
            device,
            is_enough=lambda: time.monotonic() - began > SECONDS_OF_A_SIZE,
        )
    finally:
        torch.set_num_threads(threads)
    return alone if processes == 1 else SLOWER_TOGETHER * alone


def _draw_noise(side: int, batch_size: int) -> Iterator[Batch]:
    """Draw batches of noise with three objects an image, without end."""
    boxes = side * torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.3, 0.5, 0.8, 0.9], [0.6, 0.1, 0.9, 0.3]])
    targets = Targets(torch.arange(len(boxes)), boxes, (side, side))
    while True:
        images, sizes = torch.rand(batch_size, 3, side, side), [ImageSize(side, side, side, side)] * batch_size
        yield Batch(images, None, [targets] * batch_size, sizes, list(range(batch_size)))
