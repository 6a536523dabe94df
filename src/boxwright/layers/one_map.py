"""Levels that are made from maps of one stride, as a plain vision transformer puts out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import avg_pool_ceil
from boxwright.layers.channel_norm import ChannelNorm
from boxwright.layers.option_checks import check_choice
from boxwright.layers.padding import crop_map
from boxwright.structures import Features, Spec

SCALES = (4.0, 2.0, 1.0, 0.5)
"""Cells of a level per cell of the map that it is made from, along a side."""


class OneMapLevels:
    """Names, strides and sizes of the levels that are made from maps of one stride.

    That stride is the coarsest one that comes in; finer levels are brought to it by averaging their cells. A level is
    called by its stride: c3 for 8; a stride that is no power of two takes the nearest.

    A level has ceil(size / stride) cells for images of a ``size`` that the finest map which comes in tells exactly.
    Maps of a coarse stride alone tell the size up to a cell, so that a finer level has a whole multiple of their cells:
    14 at stride 8 from 7 at stride 16, where an image of 100 pixels would have 13.

    Args:
        in_spec: the levels that come in, fine to coarse.
        scales: cells of each level that goes out per cell of the map, largest first, of 4, 2, 1 and 0.5.

    Raises:
        ValueError: no level comes in, the scales are not in that order, a level would have no whole stride, or a stride
            that comes in is not the coarsest divided by a power of two.
    """

    def __init__(self, in_spec: Spec, scales: Sequence[float]) -> None:
        for scale in scales:
            check_choice("each of scales", scale, SCALES)
        if not scales or list(scales) != sorted(set(scales), reverse=True):
            raise ValueError(f"scales are one or more, each once and the largest first, not {list(scales)}")
        if not in_spec:
            raise ValueError("a pyramid needs at least one level to be made from")
        self.in_strides = {name: level.stride for name, level in in_spec.items()}
        name, self.stride = list(self.in_strides.items())[-1]
        for fine, stride in self.in_strides.items():
            if self.stride not in (stride * 2**i for i in range(16)):
                raise ValueError(f"stride {self.stride} of {name} is not {stride} of {fine} times a power of two")
        if self.stride % scales[0]:
            raise ValueError(f"a level of stride {self.stride} cannot have {scales[0]:g} times the cells: {name}")
        self.strides = {f"c{round(math.log2(self.stride / x))}": round(self.stride / x) for x in scales}
        self.scales = dict(zip(self.strides, scales, strict=True))

    def gather(self, features: Features) -> list[Float[Tensor, "b _c h w"]]:
        """Bring all levels that come in to the coarsest stride."""
        maps = []
        for name, stride in self.in_strides.items():
            x = features[name]
            for _ in range(round(math.log2(self.stride / stride))):
                x = avg_pool_ceil(x)
            maps.append(x)
        return maps

    def cut(self, x: Float[Tensor, "b c h_in w_in"], name: str, features: Features) -> Float[Tensor, "b c h_out w_out"]:
        """Leave out the last rows and columns of a level that are beyond the image.

        Args:
            x: the map that was gathered, at the scale of the level.
            name: of the level.
            features: the maps that came in, of which the finest tells the size of the image.
        """
        finest, stride = next(iter(self.in_strides.items()))
        if stride == self.stride or self.scales[name] <= 1:
            return x
        step = self.strides[name]
        height, width = ((size * stride + step - 1) // step for size in features[finest].shape[-2:])
        return crop_map(x, height, width)


def map_upsampler(channels: int, scale: float) -> tuple[nn.Sequential, int]:
    """Make transposed convolutions that give a map ``scale`` times the cells, 1 or more; with the width after them.

    Each doubles the cells and halves the channels, norm and GELU between two of them.

    Source: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, section 3.
    """
    half, quarter = max(1, channels // 2), max(1, channels // 4)
    if scale < 2:
        return nn.Sequential(), channels
    layers: list[nn.Module] = [nn.ConvTranspose2d(channels, half, 2, 2)]
    if scale == 2:
        return nn.Sequential(*layers), half
    layers += [ChannelNorm(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, 2)]
    return nn.Sequential(*layers), quarter


def resize_by(x: Float[Tensor, "b c h_in w_in"], scale: float) -> Float[Tensor, "b c h w"]:
    """Resize a map, bilinear: for 0.5, that is the mean of 2 x 2 cells, to ceil(cells / 2)."""
    if scale == 1:
        return x
    return avg_pool_ceil(x) if scale < 1 else F.interpolate(x, scale_factor=scale, mode="bilinear")
