"""Replay: a step of training that failed, repeated and watched."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from boxwright.compose.detectors import build_resolved, load_weights
from boxwright.compose.recipe import Recipe
from boxwright.devices import choose_device, choose_precision
from boxwright.training.distillation import Teacher
from boxwright.training.failed_step import FAILED_STEP, FailedStep, read_failed_step
from boxwright.training.overflow import Overflow, diagnose_step
from boxwright.workflows.observer import Observer


@dataclass(frozen=True)
class RepeatedStep:
    """A step that was repeated.

    Args:
        precision: float32 or bfloat16.
        losses: its named terms.
        gradient_norm: before clipping.
        overflow: first values that are not finite; None where all are.
    """

    precision: Literal["float32", "bfloat16"]
    losses: dict[str, float]
    gradient_norm: float
    overflow: Overflow | None


@dataclass(frozen=True)
class ReplayResult:
    """A step of training that failed, repeated.

    Args:
        step: its number in the run, from 1.
        image_ids: of the images of the process that failed.
        failure: what training has found, in one line.
        repeats: the step in the run's own precision, and in float32 where that is another.
    """

    step: int
    image_ids: Sequence[int]
    failure: str
    repeats: Sequence[RepeatedStep]

    def to_json(self) -> dict[str, Any]:
        """Return plain values; JSON has no numbers that are not finite, and they are texts: nan, inf, -inf."""
        repeats = [
            {
                "precision": one.precision,
                "losses": {name: _plain(value) for name, value in one.losses.items()},
                "gradient_norm": _plain(one.gradient_norm),
                "overflow": None if one.overflow is None else one.overflow.to_dict(),
            }
            for one in self.repeats
        ]
        return {"step": self.step, "image_ids": list(self.image_ids), "failure": self.failure, "repeats": repeats}


def replay(
    path: str | Path,
    *,
    device: str = "auto",
    trusted: Collection[str] = (),
    observer: Observer | None = None,
) -> ReplayResult:
    """Repeat a step of training whose loss or gradient was not finite: as it was, and in float32.

    Args:
        path: the ``failed_step.pt`` that training left in the folder of its run, or that folder.
        device: cpu, cuda, ...; auto takes a GPU where there is one.
        trusted: modules that may be imported for parts outside Boxwright.
        observer: hears what is different from then; notes become warnings where None.

    Raises:
        FileNotFoundError: there is no such file, or not the weights of the teacher that the step learns from.
        ValueError: another file or a damaged one, or no such device.
    """
    observer, file = observer or Observer(), Path(path)
    if file.is_dir():
        file /= FAILED_STEP
    failed, used = read_failed_step(file), choose_device(device)
    try:
        recipe = Recipe.from_dict(failed.recipe, trusted=trusted)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if used.type != failed.device:
        observer.note(f"the step failed on {failed.device}, and is repeated on {used.type}")
    precision = choose_precision(recipe.train.runtime.precision, used)
    threads = torch.get_num_threads()
    torch.set_num_threads(failed.threads)
    try:
        precisions = dict.fromkeys((precision, choose_precision("float32", used)))
        repeats = [_repeat(file, failed, recipe, used, one) for one in precisions]
    finally:
        torch.set_num_threads(threads)
    return ReplayResult(failed.step + 1, failed.batch.image_ids, failed.failure, repeats)


def _plain(number: float) -> float | str:
    return number if math.isfinite(number) else str(number)


def _repeat(
    file: Path, failed: FailedStep, recipe: Recipe, device: torch.device, precision: Literal["float32", "bfloat16"]
) -> RepeatedStep:
    """Repeat the step with a detector of its own: statistics of norms change."""
    detector = build_resolved(recipe, categories=failed.categories)
    try:
        load_weights(detector, failed.weights)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    detector.freeze(recipe.train.freeze)
    detector.to(device).train()
    if device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    options = replace(recipe.train, runtime=replace(recipe.train.runtime, precision=precision))
    diagnosis = diagnose_step(
        detector,
        failed.batch,
        options,
        device,
        totals=failed.totals,
        noise_seed=failed.noise_seed,
        teacher=Teacher.of(detector, device, precision),
    )
    return RepeatedStep(precision, diagnosis.result.losses, diagnosis.result.gradient_norm, diagnosis.overflow)
