"""Padding masks on the way from the network input to the levels."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.onnx_operators import operators_for_onnx


def resize_mask(mask: Bool[Tensor, "b h w"], height: int, width: int) -> Bool[Tensor, "b height width"]:
    """Resize a mask to a level of ``height`` x ``width`` cells, True on padding (nearest cell)."""
    if operators_for_onnx():
        # The same cells, where runtimes divide by the factor and round another way.
        rows, columns = _nearest(mask.shape[1], height, mask), _nearest(mask.shape[2], width, mask)
        return mask.index_select(1, rows).index_select(2, columns)
    return F.interpolate(mask[:, None].float(), size=(height, width))[:, 0].bool()


def _nearest(size: int, cells: int, like: Tensor) -> Int[Tensor, " {cells}"]:
    """Find the element that stands for each of ``cells`` along an axis of ``size``, rounded as ``F.interpolate``."""
    factor = torch.tensor(size, dtype=torch.float32) / torch.tensor(cells, dtype=torch.float32)
    positions = torch.arange(cells, dtype=torch.float32, device=like.device) * factor
    return positions.to(torch.int64).clamp(max=size - 1)


def crop_map(x: Float[Tensor, "b c h_in w_in"], rows: Any, columns: Any) -> Float[Tensor, "b c h w"]:
    """Leave out what is beyond the first ``rows`` and ``columns`` of a map."""
    if operators_for_onnx():
        # A crop would compare sizes.
        kept = [torch.arange(size, device=x.device) for size in (rows, columns)]
        return x.index_select(2, kept[0]).index_select(3, kept[1])
    return x[..., :rows, :columns]


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
