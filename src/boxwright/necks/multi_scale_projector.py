"""Multi-scale projector: a convolutional block for each stride, on several maps of one stride, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.channel_norm import ChannelNorm
from boxwright.layers.one_map import OneMapLevels, map_upsampler
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.structures import Features, Level, Spec

__all__ = ["MultiScaleProjector"]

ProjectorNorm = Literal["layer", "batch"]


class MultiScaleProjector(nn.Module):
    """Each level is all maps, resampled one by one, side by side in a C2f block, and a layer norm.

    out_s = norm(C2f(cat(resample_s(x_1), ..., resample_s(x_n))))

    Upsampled by transposed convolutions, downsampled by a 3 x 3 convolution of stride 2. Levels that come in are
    brought to the coarsest stride.

    Args:
        in_spec: the levels that come in, fine to coarse: of four blocks in RF-DETR.
        out_channels: width of every level that goes out.
        scales: cells of each level per cell of the maps, largest first, of 4, 2, 1 and 0.5. The levels are called by
            their strides: c3 to c5 of maps of stride 16. RF-DETR's smaller models have 1 alone.
        num_blocks: bottlenecks of each C2f block.
        norm: after every convolution but transposed ones: ``layer``, over the channels of each cell (RF-DETR), or
            ``batch`` (LW-DETR).

    Raises:
        ValueError: an option is out of range, or the strides that come in do not fit the scales.

    Source: Chen et al., LW-DETR, 2024, section 3.1, and ``MultiScaleProjector`` of roboflow/rf-detr 35ac6ab. Checked
    against the latter, with both norms: same weights, same outputs and gradients.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        scales: Sequence[float] = (2.0, 1.0, 0.5),
        num_blocks: int = 3,
        norm: ProjectorNorm = "layer",
    ) -> None:
        super().__init__()
        check_counts({"num_blocks": num_blocks})
        check_counts({"out_channels": out_channels}, least=2)
        check_choice("norm", norm, get_args(ProjectorNorm))
        self.levels = OneMapLevels(in_spec, scales)
        self.resample, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        for name, scale in self.levels.scales.items():
            widths, resamplers = [], nn.ModuleList()
            for level in in_spec.values():
                resampler, width = map_upsampler(level.channels, scale)
                if scale < 1:
                    resampler = normed_layer(width, width, 3, norm, nn.ReLU(inplace=True), stride=2)
                widths.append(width)
                resamplers.append(resampler)
            self.resample[name] = resamplers
            self.fuse[name] = nn.Sequential(C2f(sum(widths), out_channels, num_blocks, norm), ChannelNorm(out_channels))
        self.out_spec: Spec = {name: Level(out_channels, stride) for name, stride in self.levels.strides.items()}

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        maps = self.levels.gather(features)
        levels: Features = {}
        for name, fuse in self.fuse.items():
            resampled = [resample(x) for resample, x in zip(self.resample[name].children(), maps, strict=True)]
            levels[name] = fuse(self.levels.cut(torch.cat(resampled, 1), name, features))
        return levels


class C2f(nn.Module):
    """Half of the channels goes through a chain of bottlenecks, and all that it passes is put side by side and mixed.

    Args:
        in_channels: of the input.
        out_channels: of the output; half of them inside. At least 2.
        num_blocks: bottlenecks, each two 3 x 3 convolutions without a shortcut.
        norm: of every convolution, ``layer`` or ``batch``.

    Source: ``C2f`` of Ultralytics YOLOv8, as roboflow/rf-detr 35ac6ab has it.
    """

    def __init__(self, in_channels: int, out_channels: int, num_blocks: int, norm: ProjectorNorm) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = normed_layer(in_channels, 2 * half, 1, norm, nn.SiLU(inplace=True))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(normed_layer(half, half, 3, norm, nn.SiLU(inplace=True)) for _ in range(2)))
            for _ in range(num_blocks)
        )
        self.mix = normed_layer((2 + num_blocks) * half, out_channels, 1, norm, nn.SiLU(inplace=True))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        parts = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        out: Tensor = self.mix(torch.cat(parts, 1))
        return out


def normed_layer(
    in_channels: int, out_channels: int, kernel_size: int, norm: ProjectorNorm, activation: nn.Module, stride: int = 1
) -> nn.Sequential:
    """Make a convolution without a bias, a norm and an activation."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    after = ChannelNorm(out_channels) if norm == "layer" else nn.BatchNorm2d(out_channels)
    return nn.Sequential(conv, after, activation)
