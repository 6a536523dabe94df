"""Batch norms whose statistics are of the images of all processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNormCUDA(nn.SyncBatchNorm, nn.BatchNorm2d):
    """torch's own, which knows GPUs alone, as a ``BatchNorm2d`` to whoever folds or freezes it."""


class SyncedBatchNorm(nn.BatchNorm2d):
    """The same written out, for CPUs."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalize, in training with the statistics of all processes."""
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        count = all_reduce(values.new_tensor([values.numel() / values.shape[1]]))
        mean = all_reduce(values.sum(axes)) / count
        centered = values - mean.view(shape)
        variance = all_reduce(centered.square().sum(axes)) / count
        self._update(mean.detach(), variance.detach(), float(count))
        scale = (variance + self.eps).rsqrt() * self.weight
        normalized: Tensor = (centered * scale.view(shape) + self.bias.view(shape)).to(x.dtype)
        return normalized

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor, count: float) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 0.1 if self.momentum is None else self.momentum
        unbiased = variance * (count / max(count - 1, 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def sync_norms(module: nn.Module, device: torch.device) -> None:
    """Replace every ``BatchNorm2d`` by a synchronized one with the same parameters and buffers.

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
        elif isinstance(child, _BatchNorm):
            raise ValueError(
                f"train.runtime.sync_norms knows plain batch norms, and {name} is a {type(child).__name__}; give false"
            )
        else:
            sync_norms(child, device)
