"""ResNet-vd, the backbone of RT-DETR."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import AvgPoolCeil
from boxwright.layers.conv import NORM_EPS, ConvNorm, Norm, check_norm_eps
from boxwright.layers.resnet import STAGES
from boxwright.structures import Features, Level, ResidualBlock, Spec

__all__ = ["ResNetVD"]

BLOCKS_OF_VD = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class ResNetVD(nn.Module):
    """ResNet with a deep stem (c) and average-pooled shortcuts (d).

    Args:
        depth: 18 and 34 have basic blocks, 50 and 101 bottlenecks.
        levels: stages that go out, of c2 (stride 4) to c5 (stride 32); those beyond the last are not built.
        width: channels of the stem and of c2's inner convolutions; 64 in the published models.
        norm: ``batch``, or ``frozen`` for constant statistics and affine, as the published R50 and R101 train.
        frozen_stages: how many stages are not trained: 0 none, 1 the stem, 2 stem and c2, up to 5.
        norm_eps: added to the variances of norms.

    Source: He et al., Bag of Tricks, CVPR 2019, figure 2 (ResNet-C's stem, ResNet-D's shortcut). Checked against
    transformers' RTDetrResNet and ``PResNet`` of lyuwenyu/RT-DETR 068dfde. The stride sits in the 3 x 3 convolution.
    """

    def __init__(
        self,
        *,
        depth: Literal[18, 34, 50, 101] = 50,
        levels: tuple[Literal["c2", "c3", "c4", "c5"], ...] = ("c3", "c4", "c5"),
        width: int = 64,
        norm: Norm = "batch",
        frozen_stages: int = 0,
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        if depth not in BLOCKS_OF_VD:
            raise ValueError(f"depth is one of {sorted(BLOCKS_OF_VD)}, not {depth}")
        if not levels or list(levels) != [name for name in STAGES if name in levels]:
            raise ValueError(f"levels are some of {list(STAGES)}, fine to coarse and each once, not {list(levels)}")
        if width < 2 or width % 2:
            raise ValueError(f"width is a positive even number, not {width}")
        if not 0 <= frozen_stages <= 5:
            raise ValueError(f"frozen_stages is between 0 (none) and 5 (all), not {frozen_stages}")
        check_norm_eps(norm_eps)
        # A frozen stage's statistics would go on moving in training.
        norms: list[Norm] = ["frozen" if stage < frozen_stages else norm for stage in range(5)]
        self.stem = nn.Sequential(
            ConvNorm(3, width // 2, 3, 2, activation="relu", norm=norms[0], eps=norm_eps),
            ConvNorm(width // 2, width // 2, 3, activation="relu", norm=norms[0], eps=norm_eps),
            ConvNorm(width // 2, width, 3, activation="relu", norm=norms[0], eps=norm_eps),
        )
        block: type[BasicBlockVD] | type[BottleneckVD] = BasicBlockVD if depth < 50 else BottleneckVD
        channels = width
        self.stages = nn.ModuleDict()
        self.out_spec: Spec = {}
        # What lies beyond the last level that goes out would never be trained.
        for index, name in enumerate(list(STAGES)[: list(STAGES).index(levels[-1]) + 1]):
            inner = width * 2**index
            blocks = []
            for position in range(BLOCKS_OF_VD[depth][index]):
                stride = 2 if position == 0 and index > 0 else 1
                norm_of_stage = (norms[index + 1], norm_eps)
                blocks.append(block(channels, inner, stride, project=position == 0, norm=norm_of_stage))
                channels = inner * block.expansion
            self.stages[name] = nn.Sequential(*blocks)
            if name in levels:
                self.out_spec[name] = Level(channels, 4 * 2**index)
        for frozen in [self.stem, *self.stages.values()][:frozen_stages]:
            frozen.requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Features:
        x = F.max_pool2d(self.stem(images), kernel_size=3, stride=2, padding=1)
        features = {}
        for name, stage in self.stages.items():
            x = stage(x)
            if name in self.out_spec:
                features[name] = x
        return features

    def residual_blocks(self) -> Iterator[ResidualBlock]:
        """List the blocks, with their layers in the order of execution."""
        for name, stage in self.stages.items():
            for i, block in enumerate(cast(nn.Sequential, stage)):
                layers = cast(BasicBlockVD | BottleneckVD, block).layers
                yield ResidualBlock(tuple(f"stages.{name}.{i}.{layer}" for layer in layers))


def _shortcut(in_channels: int, out_channels: int, stride: int, project: bool, norm: tuple[Norm, float]) -> nn.Module:
    if not project:
        return nn.Identity()
    if stride == 2:
        return nn.Sequential(
            # An odd last row or column is averaged over what is there.
            AvgPoolCeil(),
            ConvNorm(in_channels, out_channels, 1, norm=norm[0], eps=norm[1]),
        )
    return ConvNorm(in_channels, out_channels, 1, norm=norm[0], eps=norm[1])


class BasicBlockVD(nn.Module):
    """Two 3 x 3 convolutions and a shortcut; ``project`` puts a convolution into the shortcut.

    The first block of c2 projects although neither width nor stride changes: so the published weights have it.
    """

    expansion = 1
    layers = ("conv1", "conv2")

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, project: bool, norm: tuple[Norm, float]
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 3, stride, activation="relu", norm=norm[0], eps=norm[1])
        self.conv2 = ConvNorm(channels, channels, 3, norm=norm[0], eps=norm[1])
        self.shortcut = _shortcut(in_channels, channels, stride, project, norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        out: Tensor = self.conv2(self.conv1(x))
        return out.add_(self.shortcut(x)).relu_()


class BottleneckVD(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, and a shortcut; ``project`` as in BasicBlockVD."""

    expansion = 4
    layers = ("conv1", "conv2", "conv3")

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, project: bool, norm: tuple[Norm, float]
    ) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, channels, 1, activation="relu", norm=norm[0], eps=norm[1])
        self.conv2 = ConvNorm(channels, channels, 3, stride, activation="relu", norm=norm[0], eps=norm[1])
        self.conv3 = ConvNorm(channels, channels * 4, 1, norm=norm[0], eps=norm[1])
        self.shortcut = _shortcut(in_channels, channels * 4, stride, project, norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h_out w_out"]:
        out: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return out.add_(self.shortcut(x)).relu_()
