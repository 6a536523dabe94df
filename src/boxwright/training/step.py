"""One optimizer step."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.structures import Batch, LossTotals, Targets
from boxwright.training.activation_checkpointing import checkpoint_activations


class StepResult(NamedTuple):
    """``losses`` are the named terms of this process's images; ``gradient_norm`` is before clipping."""

    losses: dict[str, float]
    gradient_norm: float

    @property
    def loss(self) -> float:
        """The sum of the terms."""
        return sum(self.losses.values())


def train_step(
    detector: Detector,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    options: TrainOptions,
    device: torch.device,
) -> StepResult:
    """Forward and backward in ``options.batches.accumulate_steps`` parts, clip, step.

    Losses are sums over objects divided by the objects of the whole step, over all processes and parts: how a step's
    images are spread does not change its gradient.

    Args:
        detector: to be trained.
        model: the same, or its wrapper that averages gradients over processes.
        optimizer: of its parameters.
        batch: this process's images of the step.
        options: of the training.
        device: of the detector.

    Raises:
        ValueError: the loss is not finite, or the images are too small for a batch norm.
    """
    optimizer.zero_grad(set_to_none=True)
    terms: dict[str, float] = {}
    parts = _parts(batch, options.batches.accumulate_steps)
    # Of a step that is one batch the head counts for itself what it needs, and some match to count.
    totals = None if len(parts) == 1 and not dist.is_initialized() else _totals(detector, batch, device)
    for i, part in enumerate(parts):
        images, targets = part.images.to(device, non_blocking=True), targets_to(part.targets, device)
        if device.type == "cpu":
            # Convolutions on a CPU are fastest with channels last.
            images = images.contiguous(memory_format=torch.channels_last)
        mask = None if part.padding_mask is None else part.padding_mask.to(device)
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model.require_backward_grad_sync = i == len(parts) - 1
        keeping = checkpoint_activations(detector) if options.batches.activation_checkpointing else nullcontext()
        with keeping, torch.autocast(device.type, torch.bfloat16, enabled=options.runtime.precision == "bfloat16"):
            output = _forward(model, images, mask, targets)
        losses = detector.loss(output, targets, totals)
        torch.stack(list(losses.values())).sum().backward()
        for name, value in zip(losses, torch.stack(list(losses.values())).detach().tolist(), strict=True):
            terms[name] = terms.get(name, 0.0) + value
    result = StepResult(terms, _clip(detector, options.optimizer.max_grad_norm))
    if not torch.isfinite(torch.tensor((result.loss, result.gradient_norm))).all():
        raise ValueError(
            f"training has diverged: loss {result.loss}, gradient norm {result.gradient_norm}; "
            "train again with a lower train.lr, or a longer train.schedule.warmup_steps"
        )
    optimizer.step()
    return result


def _forward(model: nn.Module, images: Tensor, padding_mask: Tensor | None, targets: Sequence[Targets]) -> Any:
    try:
        return model(images, padding_mask, targets)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        count, _, height, width = images.shape
        raise ValueError(
            f"a batch norm has nothing to average: a batch of {count} image of {width} x {height} pixels comes down to "
            "one cell; give a larger --image-size, or more images to a batch (train.batch_size, divided by processes "
            "and train.batches.accumulate_steps)"
        ) from error


def _totals(detector: Detector, batch: Batch, device: torch.device) -> LossTotals:
    own = detector.totals(batch.targets, (batch.images.shape[-2], batch.images.shape[-1]))
    if not dist.is_initialized():
        return own
    counts = torch.tensor([own.objects, own.images, own.matches or 0], device=device)
    dist.all_reduce(counts)
    objects, images, matches = counts.tolist()
    return LossTotals(objects, images, dist.get_world_size(), None if own.matches is None else matches)


def _parts(batch: Batch, count: int) -> list[Batch]:
    if count == 1:
        return [batch]
    size = -(-len(batch.targets) // count)
    parts = []
    for first in range(0, len(batch.targets), size):
        part = slice(first, first + size)
        mask = None if batch.padding_mask is None else batch.padding_mask[part]
        parts.append(Batch(batch.images[part], mask, batch.targets[part], batch.sizes[part], batch.image_ids[part]))
    return parts


def targets_to(targets: Sequence[Targets], device: torch.device) -> list[Targets]:
    """Move targets to a device."""
    return [
        Targets(t.labels.to(device), t.boxes.to(device), t.size, None if t.masks is None else t.masks.to(device))
        for t in targets
    ]


def _clip(detector: Detector, max_norm: float) -> float:
    parameters = [p for p in detector.parameters() if p.grad is not None]
    return float(nn.utils.clip_grad_norm_(parameters, max_norm if max_norm > 0 else float("inf")))
