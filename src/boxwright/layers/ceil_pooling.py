"""Pools whose last windows may reach beyond the map, and then count the cells that they have."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.ops import onnx_operators


def max_pool_ceil(x: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c h_out w_out"]:
    """Take the largest of each window of ``size`` x ``size`` cells, to ceil(cells / size)."""
    if onnx_operators.operators_for_onnx():
        return cast(Tensor, onnx_operators.onnx_max_pool_ceil(x, size))
    return F.max_pool2d(x, size, ceil_mode=True)


def avg_pool_ceil(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_out w_out"]:
    """Average windows of 2 x 2 cells, to ceil(cells / 2)."""
    if onnx_operators.operators_for_onnx():
        return cast(Tensor, onnx_operators.onnx_avg_pool_ceil(x))
    return F.avg_pool2d(x, 2, ceil_mode=True)


class AvgPoolCeil(nn.Module):
    """``avg_pool_ceil`` as a module."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_out w_out"]:
        return avg_pool_ceil(x)


class MaxPoolCeil(nn.Module):
    """``max_pool_ceil`` as a module."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_out w_out"]:
        return max_pool_ceil(x, self.size)
