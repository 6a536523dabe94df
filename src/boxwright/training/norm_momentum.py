"""Momentum of batch norms at the beginning of training, when their statistics have not seen many batches."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class MomentumRamp:
    """The norms of a detector that average all batches so far, until their own momentum is the larger weight.

    The newest of n batches counts ``max(momentum, 1 / n)``: running statistics are the plain mean over the first
    ``1 / momentum`` batches, and nothing is left of the zeros and ones that a new norm begins with. With a momentum of
    0.01 these would still be 58 % of the statistics after 55 steps, and a detector that is evaluated then finds
    nothing. Afterward the norm is as it always was, and the difference fades as ``(1 - momentum) ** n``.

    Which batch is the n-th stands in the norm's own counter, ``num_batches_tracked``, which checkpoints keep: a resumed
    run goes on exactly. A norm in evaluation, as in a frozen part, is left as it is.

    Args:
        detector: in training, after its norms are synchronized.
        is_new: training begins, so that statistics which are not those of a new norm were loaded. Such norms keep
            their own momentum from the first step on, as if they had seen enough batches.

    Source: ``momentum=None`` of torch's batch norms, and the ramp of ``Schedule.ema_decay``. Differs from TensorFlow's
    EfficientDet, whose norms begin as torch's do: its runs are of many thousand steps.
    """

    def __init__(self, detector: nn.Module, *, is_new: bool) -> None:
        self.norms = [
            (module, module.momentum)
            for module in detector.modules()
            if isinstance(module, _BatchNorm) and module.track_running_stats and module.momentum
        ]
        if is_new:
            for norm, momentum in self.norms:
                if norm.training and not _is_fresh(norm):
                    _count(norm).clamp_(min=_batches_of_ramp(momentum))

    def update(self) -> None:
        """Set the momentum of every norm for the step that comes next."""
        if not self.norms:
            return
        counts = torch.stack([_count(norm) for norm, _ in self.norms]).tolist()
        going_on = []
        for (norm, momentum), count in zip(self.norms, counts, strict=True):
            # torch: no momentum is the mean over all batches.
            norm.momentum = None if count < _batches_of_ramp(momentum) else momentum
            if norm.momentum is None:
                going_on.append((norm, momentum))
        self.norms = going_on

    def end(self) -> None:
        """Give the norms their own momentum back."""
        for norm, momentum in self.norms:
            norm.momentum = momentum
        self.norms = []


def _batches_of_ramp(momentum: float) -> int:
    """Return the number of batches whose mean gives the newest one more weight than ``momentum``."""
    return math.ceil(1 / momentum) - 1


def _count(norm: _BatchNorm) -> torch.Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked


def _is_fresh(norm: _BatchNorm) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
