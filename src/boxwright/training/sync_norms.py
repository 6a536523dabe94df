"""Batch norms whose statistics are of the images of all processes."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNormCUDA(nn.SyncBatchNorm, nn.BatchNorm2d):
    """torch's own, which knows GPUs alone, as a ``BatchNorm2d`` to whoever folds or freezes it."""


class SyncedBatchNorm(nn.BatchNorm2d):
    """The same written out, for CPUs."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalize, in training with the statistics of all processes."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        return normalize_together(self, x)


def normalize_together(norm: nn.BatchNorm2d, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Normalize with the statistics of the images of all processes, and move the running ones toward them."""
    values = x if x.dtype == torch.float64 else x.float()
    axes, shape = (0, 2, 3), (1, -1, 1, 1)
    count = _sum_processes(values.new_tensor([values.numel() / values.shape[1]]))
    mean = _sum_processes(values.sum(axes)) / count
    centered = values - mean.view(shape)
    variance = _sum_processes(centered.square().sum(axes)) / count
    _update(norm, mean.detach(), variance.detach(), float(count))
    scale = (variance + norm.eps).rsqrt() * norm.weight
    normalized: Tensor = (centered * scale.view(shape) + norm.bias.view(shape)).to(x.dtype)
    return normalized


class _ProcessSum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return _all_reduced(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        return _all_reduced(gradient)


def _sum_processes(x: Tensor) -> Tensor:
    return cast(Tensor, _ProcessSum.apply(x))


def _all_reduced(x: Tensor) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


@torch.no_grad()
def _update(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: float) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    unbiased = variance * (count / max(count - 1, 1))
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), momentum)


def sync_norms(module: nn.Module, device: torch.device) -> None:
    """Replace every ``BatchNorm2d``, and timm's with an activation, by a synchronized one with the same tensors.

    Raises:
        ValueError: there is a batch norm of another kind.
    """
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d and child.affine and child.track_running_stats:
            kind = SyncedBatchNormCUDA if device.type == "cuda" else SyncedBatchNorm
            synced = kind(child.num_features, child.eps, child.momentum)
            synced.train(child.training)
            synced._parameters, synced._buffers = child._parameters, child._buffers
            setattr(module, name, synced)
        elif type(child).__name__ == "BatchNormAct2d" and child.affine and child.track_running_stats:
            from boxwright.training.sync_norm_act import SyncedBatchNormAct

            setattr(module, name, SyncedBatchNormAct.of(cast(Any, child)))
        elif isinstance(child, _BatchNorm):
            raise ValueError(
                f"train.runtime.sync_norms knows plain batch norms, and {name} is a {type(child).__name__}; give false"
            )
        else:
            sync_norms(child, device)
