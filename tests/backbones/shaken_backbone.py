"""Images for backbones, and weights that are neither zeros nor ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from boxwright.layers.conv import FrozenBatchNorm2d


def make_images(height: int = 64, width: int = 64, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def shake_backbone(backbone: nn.Module, spread: float = 0.3, little: Sequence[str] = ()) -> None:
    """Move weights by ``spread`` over the root of what they sum, and the statistics of norms.

    Args:
        backbone: is changed.
        spread: as a fraction of the weights that keep the size of what comes in.
        little: parts of names whose weights move by 0.01 instead.
    """
    torch.manual_seed(1)
    for name, parameter in backbone.named_parameters():
        own = 0.01 if any(part in name for part in little) else spread
        parameter.add_(torch.randn_like(parameter) * (own / parameter[0].numel() ** 0.5))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
