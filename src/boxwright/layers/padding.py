"""Padding masks on the way from the network input to the levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def resize_mask(mask: Bool[Tensor, "b h w"], height: int, width: int) -> Bool[Tensor, "b height width"]:
    """Resize a mask to a level of ``height`` x ``width`` cells, True on padding (nearest cell)."""
    return F.interpolate(mask[:, None].float(), size=(height, width))[:, 0].bool()


def valid_ratio(mask: Bool[Tensor, "b h w"]) -> Float[Tensor, "b 2"]:
    """Compute the (x, y) fraction of the map inside the image, from the first row and column of its mask."""
    valid = ~mask
    return torch.stack((valid[:, 0].float().mean(1), valid[:, :, 0].float().mean(1)), -1)


def infer_valid_sizes(
    mask: Bool[Tensor, "b h w"] | None, finest: Float[Tensor, "b c y x"], stride: int
) -> Float[Tensor, "#b 2"]:
    """Infer (height, width) of each image inside its padding, in pixels of the network input.

    Args:
        mask: True on padding, which is at the right and at the bottom.
        finest: a map of the network input; without a mask its size is taken, which may be up to a cell larger.
        stride: of that map, in pixels.
    """
    if mask is None:
        height, width = finest.shape[-2] * stride, finest.shape[-1] * stride
        return torch.tensor([[height, width]], device=finest.device, dtype=torch.float32)
    valid = ~mask
    return torch.stack((valid[:, :, 0].sum(1), valid[:, 0].sum(1)), -1).float()
