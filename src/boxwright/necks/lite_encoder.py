"""DEIMv2's lite encoder: one more level by pooling, then a path down and a path up by sums."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.rep_vgg import RepELAN
from boxwright.structures import Features, Level, Spec

__all__ = ["LiteEncoder"]


class LiteEncoder(nn.Module):
    """The levels that come in, and one of twice the coarsest stride, fused by sums on a path down and a path up.

    The level that is added is pooled from the coarsest; its mean over the map is added to each of its cells, in place
    of attention.

    Args:
        in_spec: the levels that come in, fine to coarse; one in DEIMv2.
        hidden_dim: width of every level inside and out.
        expansion: width of the fusion blocks as a fraction of ``hidden_dim``.
        num_blocks: RepVGG blocks per stage of a fusion.

    Raises:
        ValueError: ``expansion`` leaves no channel.

    Source: Huang et al., Real-Time Object Detection Meets DINOv3, 2025. Checked against ``LiteEncoder`` of
    Intellindust-AI-Lab/DEIMv2 0fff8d4. Differs in taking several levels too, and in upsampling to the size of the
    finer level rather than by two, so that sizes which are not multiples of 32 pass.
    """

    def __init__(self, in_spec: Spec, *, hidden_dim: int = 64, expansion: float = 0.34, num_blocks: int = 2) -> None:
        super().__init__()
        width = int(hidden_dim * expansion) // 2
        if width < 1:
            raise ValueError(f"expansion leaves at least two of {hidden_dim} channels, and {expansion} does not")
        coarsest = 2 * max(level.stride for level in in_spec.values())
        strides = {name: level.stride for name, level in in_spec.items()}
        strides[f"c{coarsest.bit_length() - 1}"] = coarsest
        self.out_spec: Spec = {name: Level(hidden_dim, stride) for name, stride in strides.items()}
        self.projections = nn.ModuleDict(
            {name: ConvNorm(level.channels, hidden_dim, 1) for name, level in in_spec.items()}
        )
        self.extra = PooledDownsample(hidden_dim, 2)
        self.add_mean = ConvNorm(hidden_dim, hidden_dim, 1, activation="silu")

        def fuse() -> nn.Module:
            return RepELAN(
                hidden_dim,
                hidden_dim,
                split_channels=2 * hidden_dim,
                stage_channels=width,
                num_blocks=num_blocks,
                joint=True,
            )

        self.down_blocks = nn.ModuleList(fuse() for _ in in_spec)
        self.downsamples = nn.ModuleList(PooledDownsample(hidden_dim, b // a) for a, b in pairwise(strides.values()))
        self.up_blocks = nn.ModuleList(fuse() for _ in in_spec)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        levels = [project(features[name]) for name, project in self.projections.items()]
        top = self.extra(levels[-1])
        top = self.add_mean(top + top.mean((2, 3), keepdim=True))
        inner = [top]  # coarse to fine
        for block, level in zip(self.down_blocks, reversed(levels), strict=True):
            inner.append(block(level + F.interpolate(inner[-1], size=level.shape[-2:])))
        out = [inner.pop()]
        for downsample, block, level in zip(self.downsamples, self.up_blocks, reversed(inner), strict=True):
            out.append(block(level + downsample(out[-1])))
        return dict(zip(self.out_spec, out, strict=True))


class PooledDownsample(nn.Sequential):
    """Means of 3 x 3 cells, then a 1 x 1 convolution, batch norm and SiLU.

    Args:
        channels: of input and output.
        stride: of the means.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(nn.AvgPool2d(3, stride, 1), ConvNorm(channels, channels, 1, activation="silu"))
