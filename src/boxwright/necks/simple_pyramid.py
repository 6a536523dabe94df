"""Simple feature pyramid: all levels from one map, as a plain vision transformer puts out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import MaxPoolCeil
from boxwright.layers.channel_norm import ChannelNorm
from boxwright.layers.feature_pyramid import ExtraLevels
from boxwright.layers.one_map import OneMapLevels, map_upsampler
from boxwright.layers.option_checks import check_counts
from boxwright.structures import Features, Level, Spec

__all__ = ["SimplePyramid"]


class SimplePyramid(nn.Module):
    """Each level is the one map, upsampled by transposed convolutions or max-pooled, then smoothed.

    out_s = norm(conv3x3(norm(conv1x1(resample_s(x))))), with layer norms over the channels of each cell

    Where several levels come in, x is all of them, side by side, at the coarsest stride.

    Args:
        in_spec: the levels that come in, fine to coarse.
        out_channels: width of every level that goes out.
        scales: cells of each level per cell of the map, largest first, of 4, 2, 1 and 0.5. The levels are called by
            their strides: c2 to c5 of a map of stride 16.
        extra_levels: levels to add beyond the coarsest, each every second cell of the one before: 1 for P6.

    Raises:
        ValueError: an option is out of range, or the strides that come in do not fit the scales.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, section 3. Checked
    against SimpleFeaturePyramid of facebookresearch/detectron2 02b5c4e: same weights, same outputs and gradients.
    Differs in pooling to ceil(cells / 2), where it leaves out the last row or column of an odd map.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        scales: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        extra_levels: int = 0,
    ) -> None:
        super().__init__()
        check_counts({"out_channels": out_channels})
        self.levels = OneMapLevels(in_spec, scales)
        channels = sum(level.channels for level in in_spec.values())
        self.resample, self.smooth = nn.ModuleDict(), nn.ModuleDict()
        for name, scale in self.levels.scales.items():
            upsampler, width = map_upsampler(channels, scale)
            self.resample[name] = MaxPoolCeil(2) if scale < 1 else upsampler
            self.smooth[name] = nn.Sequential(
                nn.Conv2d(width, out_channels, 1, bias=False),
                ChannelNorm(out_channels),
                nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                ChannelNorm(out_channels),
            )
        made: Spec = {name: Level(out_channels, stride) for name, stride in self.levels.strides.items()}
        self.extra = ExtraLevels(made, out_channels, extra_levels, "max_pool")
        self.out_spec: Spec = {**made, **self.extra.out_spec}

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        x = torch.cat(self.levels.gather(features), 1)
        levels: Features = {}
        for name, smooth in self.smooth.items():
            levels[name] = smooth(self.levels.cut(self.resample[name](x), name, features))
        coarsest = list(levels.values())[-1]
        return {**levels, **self.extra(coarsest, coarsest)}
