"""Helpers of the benchmarks: actions in turn, and objects to train on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from boxwright.structures import Targets

Action = Callable[[], object]


def in_turn(*actions: Action, rounds: int, warm_up: int = 2) -> list[float]:
    """Measure the median seconds of actions that take turns; the first ``warm_up`` rounds do not count."""
    seconds: list[list[float]] = [[] for _ in actions]
    for i in range(rounds + warm_up):
        for times, action in zip(seconds, actions, strict=True):
            start = time.perf_counter()
            action()
            if i >= warm_up:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in seconds]


def random_objects(
    count: int, side: int, num_classes: int, generator: torch.Generator, *, masks: bool = False
) -> Targets:
    """Draw objects of a square image, of a twentieth to two fifths of its sides; masks fill their boxes."""
    corner = torch.rand(count, 2, generator=generator) * 0.6 * side
    size = (torch.rand(count, 2, generator=generator) * 0.35 + 0.05) * side
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    boxes = torch.cat((corner, corner + size), 1)
    return Targets(labels, boxes, (side, side), _filled(boxes, side) if masks else None)


def _filled(boxes: Tensor, side: int) -> Tensor:
    y, x = torch.arange(side)[:, None], torch.arange(side)
    x1, y1, x2, y2 = boxes.t()[:, :, None, None]
    return (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
