"""timm's batch norm with an activation after it, synchronized; imported where a detector has one."""

from __future__ import annotations

import torch.distributed as dist
from jaxtyping import Float
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor

from boxwright.training.sync_norms import normalize_together


class SyncedBatchNormAct(BatchNormAct2d):
    """The norm with the statistics of all processes in training."""

    @classmethod
    def of(cls, norm: BatchNormAct2d) -> SyncedBatchNormAct:
        """Make one of the same tensors and activation."""
        synced = cls(norm.num_features)
        synced.__dict__.update(norm.__dict__)
        return synced

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalize and activate."""
        together = self.training and dist.is_initialized()
        activated: Tensor = self.act(self.drop(normalize_together(self, x))) if together else super().forward(x)
        return activated
