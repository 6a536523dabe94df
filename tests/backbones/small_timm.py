"""Small backbones of timm, in float64, and images for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from boxwright.backbones.timm import Timm
from boxwright.layers.conv import FrozenBatchNorm2d


def randomize(module: nn.Module) -> nn.Module:
    """Norms without any special value, in float64."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
            for tensor, low, high in (
                (norm.weight.data, 0.5, 0.9),
                (norm.bias.data, -0.2, 0.2),
                (norm.running_mean, -0.2, 0.2),
                (norm.running_var, 0.8, 1.5),
            ):
                assert tensor is not None
                tensor.uniform_(low, high, generator=generator)
    return module.double()


def make_images(height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def build(model: str, **options: Any) -> Timm:
    torch.manual_seed(0)
    return Timm(model=model, **options)
