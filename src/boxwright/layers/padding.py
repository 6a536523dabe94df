"""Padding masks on the way from the canvas to the levels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def mask_at(mask: Bool[Tensor, "b h w"], height: int, width: int) -> Bool[Tensor, "b height width"]:
    """The mask of a level of ``height`` x ``width`` cells, True on padding (nearest cell)."""
    return F.interpolate(mask[:, None].float(), size=(height, width))[:, 0].bool()


def valid_ratio(mask: Bool[Tensor, "b h w"]) -> Float[Tensor, "b 2"]:
    """(x, y) share of the map that is picture, read off the first row and column."""
    content = ~mask
    return torch.stack((content[:, 0].float().mean(1), content[:, :, 0].float().mean(1)), -1)
