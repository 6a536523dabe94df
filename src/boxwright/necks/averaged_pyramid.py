"""Averaging pyramid: the mean of several maps of one stride, resized to the other strides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.one_map import OneMapLevels, resize_by
from boxwright.layers.option_checks import check_counts
from boxwright.structures import Features, Level, Spec

__all__ = ["AveragedPyramid"]


class AveragedPyramid(nn.Module):
    """Each level is the mean of the maps, resized without weights; then a 1 x 1 convolution and a batch norm.

    Levels that come in are brought to the coarsest stride. Those that are narrower than the widest first go through a
    1 x 1 convolution and a batch norm; maps of a vision transformer are all of one width.

    Args:
        in_spec: the levels that come in, fine to coarse: of the last two blocks in EdgeCrafter's ECDet.
        out_channels: width of every level that goes out. None for that of the maps, and then only the coarsest level
            has a convolution.
        scales: cells of each level per cell of the maps, largest first, of 4, 2, 1 and 0.5. The levels are called by
            their strides: c3 to c5 of maps of stride 16.

    Raises:
        ValueError: an option is out of range, or the strides that come in do not fit the scales.

    Source: EdgeCrafter, 2026, ``ViTAdapter`` of Intellindust-AI-Lab/EdgeCrafter 706d037. Checked against it: same
    weights, same outputs and gradients. Differs in averaging to ceil(cells / 2), where it leaves out the last row or
    column of an odd map and resizes the rest.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int | None = None,
        scales: Sequence[float] = (2.0, 1.0, 0.5),
    ) -> None:
        super().__init__()
        if out_channels is not None:
            check_counts({"out_channels": out_channels})
        self.levels = OneMapLevels(in_spec, scales)
        width = max(level.channels for level in in_spec.values())
        self.widen = nn.ModuleList(
            nn.Identity() if level.channels == width else ConvNorm(level.channels, width, 1)
            for level in in_spec.values()
        )
        projected = list(self.levels.strides) if out_channels else list(self.levels.strides)[-1:]
        channels = out_channels or width
        self.project = nn.ModuleDict({name: ConvNorm(width, channels, 1) for name in projected})
        self.out_spec: Spec = {name: Level(channels, stride) for name, stride in self.levels.strides.items()}

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        maps = [widen(x) for widen, x in zip(self.widen, self.levels.gather(features), strict=True)]
        mean = torch.stack(maps).mean(0)
        levels: Features = {}
        for name, scale in self.levels.scales.items():
            x = self.levels.cut(resize_by(mean, scale), name, features)
            levels[name] = self.project[name](x) if name in self.project else x
        return levels
