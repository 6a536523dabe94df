"""One optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.devices import choose_precision
from boxwright.ops.finite import NotFiniteError
from boxwright.structures import Batch, LossTotals, Targets
from boxwright.training.activation_checkpointing import checkpoint_activations
from boxwright.training.distillation import Teacher
from boxwright.training.partition import (
    add_over_processes,
    assigning_head,
    count_assigned,
    see_whole_step,
    share_assignment,
    split_batch,
)
from boxwright.training.sharding import average_gradients_of_numbers, begin_part, is_sharded, whole_tensor


class StepResult(NamedTuple):
    """``losses`` are the named terms of this process's images; ``gradient_norm`` is before clipping."""

    losses: dict[str, float]
    gradient_norm: float

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.losses.values())

    @property
    def is_finite(self) -> bool:
        """True where the loss and the gradient are finite."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)


def resolve_precision(options: TrainOptions, device: torch.device) -> TrainOptions:
    """Return the options with the precision that "auto" means on a device, which steps have to know."""
    precision = choose_precision(options.runtime.precision, device)
    return replace(options, runtime=replace(options.runtime, precision=precision))


def train_step(
    detector: Detector,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    options: TrainOptions,
    device: torch.device,
    teacher: Teacher | None = None,
) -> StepResult:
    """Compute gradients as ``compute_gradients`` does, and step.

    Args:
        detector: to be trained.
        model: the same, or its wrapper that averages gradients over processes.
        optimizer: of its parameters.
        batch: this process's images of the step.
        options: of the training, with their precision resolved.
        device: of the detector.
        teacher: puts its maps into targets; None without distillation.

    Raises:
        NotFiniteError: the loss or the gradient is not finite; no weight has changed, but statistics of norms may have.
        ValueError: the images are too small for a batch norm.
    """
    optimizer.zero_grad(set_to_none=True)
    batch, totals = see_whole_step(detector, batch, options.batches.accumulate_steps, device)
    if teacher is not None:
        batch = teacher.teach(batch)
    result = compute_gradients(detector, model, batch, options, device, totals)
    if not result.is_finite:
        raise NotFiniteError(
            f"training has diverged: loss {result.loss}, gradient norm {result.gradient_norm}; "
            "train again with a lower train.lr, or a longer train.schedule.warmup_steps"
        )
    optimizer.step()
    return result


def compute_gradients(
    detector: Detector,
    model: nn.Module,
    batch: Batch,
    options: TrainOptions,
    device: torch.device,
    totals: LossTotals | None,
) -> StepResult:
    """Run forward and backward in ``options.batches.accumulate_steps`` parts, and clip.

    Losses are sums over objects divided by the objects of the whole step, over all processes and parts: how a step's
    images are spread does not change its gradient. Where a loss is not finite in one process, the gradient is not in
    any.

    Args:
        detector: whose gradients are computed; they are added to those that it has.
        model: the same, or its wrapper that averages gradients over processes.
        batch: this process's images of the step, which know of the whole step; see ``see_whole_step``.
        options: of the training.
        device: of the detector.
        totals: of the whole step.
    """
    terms: dict[str, float] = {}
    parts = split_batch(batch, options.batches.accumulate_steps)
    totals = _count_matches(detector, model, parts, options, device, totals)
    for i, part in enumerate(parts):
        begin_part(model, is_first=i == 0, is_last=i == len(parts) - 1)
        keeping = checkpoint_activations(detector) if options.batches.activation_checkpointing else nullcontext()
        with keeping:
            output, targets = _forward(model, part, options, device)
        output, totals_of_part = share_assignment(detector, output, targets, totals)
        losses = _losses(detector, output, targets, totals_of_part)
        loss = torch.stack(list(losses.values())).sum()
        if dist.is_initialized():
            # All processes have to hear of a loss that is not finite, and gradients are what they exchange.
            loss = loss * torch.where(loss.isfinite(), 1.0, torch.nan)
        loss.backward()
        for name, value in zip(losses, torch.stack(list(losses.values())).detach().tolist(), strict=True):
            terms[name] = terms.get(name, 0.0) + value
    average_gradients_of_numbers(model)
    return StepResult(terms, _clip(detector, options.optimizer.max_grad_norm))


def _count_matches(
    detector: Detector,
    model: nn.Module,
    parts: Sequence[Batch],
    options: TrainOptions,
    device: torch.device,
    totals: LossTotals | None,
) -> LossTotals | None:
    """Add the matches of all parts to ``totals``, where only predictions tell them, by predicting once more.

    Nothing of it remains: neither draws nor statistics of norms. Of a single part, ``share_assignment`` counts those of
    the predictions that are trained on.
    """
    head = assigning_head(detector)
    if totals is None or totals.matches is not None or len(parts) == 1 or head is None:
        return totals
    buffers, count = [buffer.clone() for buffer in detector.buffers()], 0
    devices = [device] if device.type == "cuda" else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        for part in parts:
            count += count_assigned(head, *_forward(model, part, options, device))[1]
        for buffer, before in zip(detector.buffers(), buffers, strict=True):
            buffer.copy_(before)
    return totals._replace(matches=add_over_processes([count], device)[0])


def _losses(
    detector: Detector, output: Any, targets: Sequence[Targets], totals: LossTotals | None
) -> dict[str, Float[Tensor, ""]]:
    """Compute the losses; of predictions that they cannot be computed of, one that is not a number."""
    try:
        return detector.loss(output, targets, totals)
    except (ValueError, RuntimeError, IndexError) as error:
        numbers = [x for x in pytree.tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]
        if not isinstance(error, NotFiniteError) and not any(bool(x.isnan().any()) for x in numbers):
            raise
        # Of every parameter, for processes wait for the gradients of all; those of shards come by way of predictions.
        sources: Iterable[Tensor] = numbers if is_sharded(detector) else detector.parameters()
        return {"loss": torch.stack([x.float().sum() for x in sources if x.requires_grad]).sum() * torch.nan}


def _forward(
    model: nn.Module, part: Batch, options: TrainOptions, device: torch.device
) -> tuple[Any, Sequence[Targets]]:
    """Predict from a part of a step; return the output and the targets on the device."""
    images, targets = part.images.to(device, non_blocking=True), targets_to(part.targets, device)
    if device.type == "cpu":
        # Convolutions on a CPU are fastest with channels last.
        images = images.contiguous(memory_format=torch.channels_last)
    mask = None if part.padding_mask is None else part.padding_mask.to(device)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.runtime.precision == "bfloat16"):
            return model(images, mask, targets), targets
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        count, _, height, width = images.shape
        raise ValueError(
            f"a batch norm has nothing to average: a batch of {count} image of {width} x {height} pixels comes down to "
            "one cell; give a larger --image-size, or more images to a batch (train.batch_size, divided by processes "
            "and train.batches.accumulate_steps)"
        ) from error


def targets_to(targets: Sequence[Targets], device: torch.device) -> list[Targets]:
    """Move targets to a device."""
    return [
        t._replace(
            labels=t.labels.to(device),
            boxes=t.boxes.to(device),
            masks=None if t.masks is None else t.masks.to(device),
            teacher=None if t.teacher is None else t.teacher.to(device),
        )
        for t in targets
    ]


def _clip(detector: Detector, max_norm: float) -> float:
    parameters = [p for p in detector.parameters() if p.grad is not None]
    norm = nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf"))
    return float(whole_tensor(norm))
