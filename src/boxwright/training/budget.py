"""From a time budget to a number of steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch

from boxwright.compose.train_options import TrainOptions
from boxwright.contracts import WorstCaseHead
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training.distillation import Teacher
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer
from boxwright.training.pace import EVALUATION_SHARE
from boxwright.training.step import train_step

RESERVE = 0.02
"""Fraction of the budget that the first plan leaves for checkpoints; what they and all else take is known later."""


class Plan(NamedTuple):
    """Length of a run that fits into the budget."""

    steps: int
    evaluations: int


def plan(available: float, seconds_per_step: float, seconds_per_evaluation: float, wanted_evaluations: int) -> Plan:
    """Steps and evaluations that take ``available`` seconds together; one evaluation at least, if any is wanted.

    Raises:
        ValueError: not even ten steps fit.
    """
    valid = available * (1 - RESERVE)
    affordable = int(valid * EVALUATION_SHARE / max(seconds_per_evaluation, 1e-9))
    evaluations = min(wanted_evaluations, max(1, affordable))
    steps = int((valid - evaluations * seconds_per_evaluation) / seconds_per_step)
    if steps < 10:
        raise ValueError(
            f"train.budget is too small: {available:.0f} s are left, a step takes {seconds_per_step:.2f} s and an "
            f"evaluation {seconds_per_evaluation:.1f} s; give more time, or lower --image-size or train.batch_size"
        )
    return Plan(steps, evaluations)


def measure_step(
    detector: Detector,
    batches: Callable[[int], Iterator[Batch]],
    sizes: Sequence[int],
    options: TrainOptions,
    device: torch.device,
    *,
    teacher: Teacher | None = None,
    is_enough: Callable[[], bool],
) -> float:
    """Seconds of a step, its data included, averaged over the training sizes; trains a copy, not ``detector``.

    Args:
        detector: as training will begin with it.
        batches: endless training batches of one image size.
        sizes: what training chooses from, evenly.
        options: of the training.
        device: where the detector is.
        teacher: of the distillation; None without.
        is_enough: asked before every step but the first; where several processes measure, it answers them all alike.
    """
    copy = deepcopy(detector).train()
    average = MovingAverage(copy) if options.ema_decay else None
    optimizer = make_optimizer(copy, options)
    for group in optimizer.param_groups:
        group["lr"] = 0.0

    def step(source: Iterator[Batch]) -> float:
        start = time.perf_counter()
        batch = next(source)
        if isinstance(copy.head, WorstCaseHead):
            batch = batch._replace(targets=copy.head.worst_case_targets(batch.targets))
        train_step(copy, copy, optimizer, batch, options, device, teacher)
        if average is not None:
            average.update(copy, 0.5)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    # The largest first: it allocates what all others reuse.
    unique = sorted(set(sizes), reverse=True)
    base = sizes[len(sizes) // 2]
    first = step(batches(unique[0]))
    seconds: dict[int, list[float]] = {unique[0]: [first]}
    order = [base, base, *unique, base, base, *unique]
    for size in order:
        if is_enough():
            break
        seconds.setdefault(size, []).append(step(batches(size)))
    typical = {size: sorted(times)[len(times) // 2] for size, times in seconds.items()}
    reference = base if base in typical else unique[0]
    # A size that was not measured takes time as its area does.
    estimates = [typical.get(size, typical[reference] * (size / reference) ** 2) for size in sizes]
    return sum(estimates) / len(estimates)
