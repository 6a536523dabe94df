"""Fusion of levels by convolutions, where a whole neck would be too much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm


class LightPathAggregation(nn.Module):
    """A path down and a path up, fused by addition; one convolution smooths each level that goes out.

    down_l = x_l + nearest(down_{l+1});  out_l = smooth(down_l + conv3x3_stride2(out_{l-1})), without the second term
    on the finest level.

    Args:
        strides: of the levels, fine to coarse, in pixels of the input.
        channels: of every level.

    Source: Liu et al., PANet, CVPR 2018, section 3.1. Differs in having no convolution on the path down but on the
    finest level, where it is the way out, and in batch norm and SiLU as in RT-DETR's CCFF.
    """

    def __init__(self, strides: Sequence[int], channels: int) -> None:
        super().__init__()
        self.downsamples = nn.ModuleList(
            ConvNorm(channels, channels, 3, coarse // fine, activation="silu") for fine, coarse in pairwise(strides)
        )
        self.smooth = nn.ModuleList(ConvNorm(channels, channels, 3, activation="silu") for _ in strides)

    def forward(self, levels: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        """Aggregate levels, which come and go from fine to coarse."""
        inner = [levels[-1]]
        for level in reversed(levels[:-1]):
            inner.insert(0, level + F.interpolate(inner[0], size=level.shape[-2:]))
        out = [self.smooth[0](inner[0])]
        for smooth, downsample, level in zip(self.smooth[1:], self.downsamples, inner[1:], strict=True):
            out.append(smooth(level + downsample(out[-1])))
        return out
