"""RepVGG blocks, with two branches in training and one convolution in deployment, and what is built of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ACTIVATIONS, Activation, ConvNorm, fold_tensors, overwrite, with_weights


class RepVGGBlock(nn.Module):
    """activation(conv3x3-norm(x) + conv1x1-norm(x)); no identity branch.

    Args:
        channels: of input and output.
        activation: after the sum.

    Source: Ding et al., RepVGG, CVPR 2021, in the form of lyuwenyu/RT-DETR 068dfde (``RepVggBlock``).
    """

    def __init__(self, channels: int, *, activation: Activation = "silu") -> None:
        super().__init__()
        self.conv3x3: ConvNorm | nn.Conv2d = ConvNorm(channels, channels, 3)
        self.conv1x1: ConvNorm | None = ConvNorm(channels, channels, 1)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        y = self.conv3x3(x)
        if self.conv1x1 is not None:
            y = y + self.conv1x1(x)
        out: Tensor = self.activation(y)
        return out

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Replace both branches and their norms by one 3 x 3 convolution with bias. For inference only."""
        if not isinstance(self.conv3x3, ConvNorm) or self.conv1x1 is None:
            return
        weight, bias = fold_tensors(self.conv3x3.conv, self.conv3x3.norm)
        point_weight, point_bias = fold_tensors(self.conv1x1.conv, self.conv1x1.norm)
        weight = weight + F.pad(point_weight, (1, 1, 1, 1))
        self.conv3x3 = with_weights(self.conv3x3.conv, weight, bias + point_bias)
        self.conv1x1 = None
        overwrite(self.activation)


class CSPRepLayer(nn.Module):
    """Two 1 x 1 branches, one of them through RepVGG blocks, added element by element.

    out = expand(blocks(conv1(x)) + conv2(x)); ``expand`` is the identity where the hidden width is the output's.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        num_blocks: RepVGG blocks in the first branch.
        expansion: hidden width as a fraction of ``out_channels``.
        joint: one convolution, of which the first half is conv2 and the second conv1.

    Source: Zhao et al., RT-DETR, CVPR 2024, figure 4 (the "Fusion" block), as in lyuwenyu/RT-DETR 068dfde; joint, as
    ``CSPLayer2`` of Intellindust-AI-Lab/DEIMv2 0fff8d4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        num_blocks: int = 3,
        expansion: float = 1.0,
        joint: bool = False,
    ) -> None:
        super().__init__()
        hidden = int(out_channels * expansion)
        self.conv1 = ConvNorm(in_channels, 2 * hidden if joint else hidden, 1, activation="silu")
        self.conv2 = None if joint else ConvNorm(in_channels, hidden, 1, activation="silu")
        self.blocks = nn.Sequential(*[RepVGGBlock(hidden) for _ in range(num_blocks)])
        self.expand = nn.Identity() if hidden == out_channels else ConvNorm(hidden, out_channels, 1, activation="silu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        if self.conv2 is None:
            beside, x = self.conv1(x).chunk(2, 1)
        else:
            x, beside = self.conv1(x), self.conv2(x)
        out: Tensor = self.expand(self.blocks(x) + beside)
        return out


class RepELAN(nn.Module):
    """Half of the channels through two stages in a row; all intermediate maps are concatenated and joined.

    out = join(concatenate(a, b, stage1(b), stage2(stage1(b)))), where a and b are the halves of split(x). A stage is a
    ``CSPRepLayer`` and, unless ``smooth`` is False, a 3 x 3 convolution.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        split_channels: of both halves together; even.
        stage_channels: of each stage's output.
        num_blocks: RepVGG blocks in each stage.
        smooth: each stage ends with a convolution.
        joint: see ``CSPRepLayer``.

    Source: Peng et al., D-FINE, ICLR 2025, appendix, after GELAN of Wang et al., YOLOv9, ECCV 2024. Checked against
    ``RepNCSPELAN4`` of Peterande/D-FINE 4a1f73a; joint, with and without the convolutions, against that and
    ``RepNCSPELAN5`` of Intellindust-AI-Lab/DEIMv2 0fff8d4.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        split_channels: int,
        stage_channels: int,
        num_blocks: int,
        smooth: bool = True,
        joint: bool = False,
    ) -> None:
        super().__init__()
        half = split_channels // 2
        self.split = ConvNorm(in_channels, 2 * half, 1, activation="silu")
        self.stages = nn.ModuleList()
        for channels in (half, stage_channels):
            stage = nn.Sequential(CSPRepLayer(channels, stage_channels, num_blocks=num_blocks, joint=joint))
            if smooth:
                stage.append(ConvNorm(stage_channels, stage_channels, 3, activation="silu"))
            self.stages.append(stage)
        self.join = ConvNorm(2 * half + 2 * stage_channels, out_channels, 1, activation="silu")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        x = self.split(x)
        maps = [x, x.chunk(2, 1)[1]]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        out: Tensor = self.join(torch.cat((maps[0], *maps[2:]), 1))
        return out
