"""The trunk of ResNet: stem, blocks and stages, for every backbone that has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import NORM_EPS, FrozenBatchNorm2d, Norm, check_norm_eps, fold
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.layers.switchable_conv import SwitchableConv2d
from boxwright.structures import Features, Level, ResidualBlock, Spec

BLOCKS_PER_STAGE = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STAGES = {"c2": "layer1", "c3": "layer2", "c4": "layer3", "c5": "layer4"}
NORMS: dict[str, type[nn.BatchNorm2d] | type[FrozenBatchNorm2d]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
}

Depth = Literal[18, 34, 50, 101, 152]
StageName = Literal["c2", "c3", "c4", "c5"]
Dilation = Literal["none", "after_first", "all"]
C5Stride = Literal[1, 2]
Atrous = Literal["none", "switchable"]
StrideIn = Literal["3x3", "1x1"]


class ResNetBody(nn.Module):
    """Stem and stages up to the last level that goes out, with the names of torchvision in checkpoints.

    Args:
        depth: 18 and 34 have basic blocks; 50, 101 and 152 bottlenecks.
        levels: stages that go out, fine to coarse.
        width: channels of the stem and of c2's inner convolutions.
        norm: ``batch`` or ``frozen``.
        frozen_stages: how many stages stay as they are loaded, their norms too; the stem is the first.
        dilation: of c5's 3 x 3 convolutions; see ``ResNet``.
        atrous: ``switchable`` makes every 3 x 3 convolution of c3, c4 and c5 a ``SwitchableConv2d``.
        stride_in: convolution of bottlenecks that has their stride.
        c5_stride: of c5 over c4; with 1, c5 has stride 16 and, unless ``dilation`` says otherwise, no dilation.
        norm_eps: added to the variances of norms, at least 0.
    """

    def __init__(
        self,
        *,
        depth: Depth,
        levels: tuple[StageName, ...],
        width: int,
        norm: Norm,
        frozen_stages: int,
        dilation: Dilation = "none",
        atrous: Atrous = "none",
        c5_stride: C5Stride = 2,
        stride_in: StrideIn = "3x3",
        norm_eps: float = NORM_EPS,
    ) -> None:
        super().__init__()
        _check(depth, levels, width, frozen_stages, dilation, atrous)
        check_norm_eps(norm_eps)
        check_choice("c5_stride", c5_stride, get_args(C5Stride))
        check_choice("stride_in", stride_in, get_args(StrideIn))
        if stride_in == "1x1" and depth < 50:
            raise ValueError(f"stride_in 1x1 is of bottlenecks, and depth {depth} has basic blocks")
        norms: list[Norm] = ["frozen" if stage < frozen_stages else norm for stage in range(5)]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = NORMS[norms[0]](width, norm_eps)
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        channels, total_stride = width, 4
        self.out_spec: Spec = {}
        # What lies beyond the last level that goes out would never be trained.
        self.built = list(STAGES)[: list(STAGES).index(levels[-1]) + 1]
        for index, name in enumerate(self.built):
            dilated = dilation if name == "c5" else "none"
            stride = 2 if index > 0 and dilated == "none" else 1
            if name == "c5":
                stride = min(stride, c5_stride)
            total_stride *= stride
            blocks = []
            for position in range(BLOCKS_PER_STAGE[depth][index]):
                inner, dilations = width * 2**index, _dilations(dilated, position)
                kind: Atrous = "none" if name == "c2" else atrous
                blocks.append(block(channels, inner, stride, dilations, norm=(norms[index + 1], norm_eps), atrous=kind))
                channels, stride = inner * block.expansion, 1
            self.add_module(STAGES[name], nn.Sequential(*blocks))
            if name in levels:
                self.out_spec[name] = Level(channels, total_stride)
        self.reset_parameters()
        if stride_in == "1x1":
            for module in self.modules():
                if isinstance(module, Bottleneck):
                    module.move_stride()
        frozen = [self.conv1, *(getattr(self, STAGES[name]) for name in self.built)]
        for stage in frozen[:frozen_stages]:
            stage.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Draw normal weights that keep the variance of the gradient through a ReLU (He et al. 2015)."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, SwitchableConv2d):
                module.reset_parameters()

    def forward(self, images: Float[Tensor, "b 3 h w"], feedback: Features | None = None) -> Features:
        """Compute the levels of images.

        Args:
            images: ready for the network.
            feedback: by stage, what is added to the sum of its first block before the ReLU.
        """
        x = F.max_pool2d(self.bn1(self.conv1(images)).relu_(), kernel_size=3, stride=2, padding=1)
        features = {}
        for name in self.built:
            x = self.stage(name, x, None if feedback is None else feedback.get(name))
            if name in self.out_spec:
                features[name] = x
        return features

    def stage(
        self, name: str, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        """Apply the blocks of one stage; ``feedback`` goes to the first."""
        for block in getattr(self, STAGES[name]):
            x, feedback = block(x, feedback), None
        return x

    def residual_blocks(self) -> Iterator[ResidualBlock]:
        """List the blocks, with their layers in the order of execution."""
        for name in self.built:
            for i, block in enumerate(getattr(self, STAGES[name])):
                yield ResidualBlock(tuple(f"{STAGES[name]}.{i}.{layer}" for layer in block.layers))

    def fold_norms(self) -> None:
        """Put the stem's norm into its convolution, for inference; the blocks do so themselves."""
        _fold_pairs(self, 1)


def _check(
    depth: int, levels: tuple[StageName, ...], width: int, frozen_stages: int, dilation: Dilation, atrous: Atrous
) -> None:
    """Raise ``ValueError`` for options that there are not."""
    check_choice("depth", depth, BLOCKS_PER_STAGE)
    if not levels or list(levels) != [name for name in STAGES if name in levels]:
        raise ValueError(f"levels are some of {list(STAGES)}, fine to coarse and each once, not {list(levels)}")
    check_counts({"width": width})
    if not 0 <= frozen_stages <= 5:
        raise ValueError(f"frozen_stages is between 0 (none) and 5 (all), not {frozen_stages}")
    if dilation != "none" and "c5" not in levels:
        raise ValueError(f"dilation {dilation} is of c5, which is not among the levels {list(levels)}")
    check_choice("atrous", atrous, get_args(Atrous))


def _dilations(dilation: Dilation, position: int) -> tuple[int, int]:
    """Choose the dilations of the first 3 x 3 convolution of a block, by its position, and of one that may follow."""
    if dilation == "none":
        return 1, 1
    return (1 if dilation == "after_first" and position == 0 else 2), 2


def _conv3x3(in_channels: int, out_channels: int, stride: int, dilation: int, atrous: Atrous) -> nn.Module:
    if atrous == "switchable":
        return SwitchableConv2d(in_channels, out_channels, stride=stride, dilation=dilation)
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


def _downsample(in_channels: int, out_channels: int, stride: int, norm: tuple[Norm, float]) -> nn.Sequential | None:
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), _make_norm(norm, out_channels))


def _make_norm(norm: tuple[Norm, float], channels: int) -> nn.BatchNorm2d | FrozenBatchNorm2d:
    """Make a norm of its kind and what is added to its variances."""
    kind, eps = norm
    return NORMS[kind](channels, eps)


def _fold_pairs(module: nn.Module, count: int) -> None:
    """Fold bn1 into conv1, bn2 into conv2, ... up to ``count``, and the downsample's norm.

    The norm after what is no plain convolution stays: after attention, and after a switchable convolution, where its
    scale would have to be divided out of the context again, and may be zero.
    """
    for i in range(1, count + 1):
        conv, norm = getattr(module, f"conv{i}"), getattr(module, f"bn{i}")
        if isinstance(conv, nn.Conv2d) and not isinstance(norm, nn.Identity):
            setattr(module, f"conv{i}", fold(conv, norm))
            setattr(module, f"bn{i}", nn.Identity())
    downsample = getattr(module, "downsample", None)
    if downsample is not None and not isinstance(downsample[1], nn.Identity):
        downsample[0], downsample[1] = fold(downsample[0], downsample[1]), nn.Identity()


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions, the stride in the first, and a shortcut."""

    expansion = 1
    layers = ("conv1", "bn1", "conv2", "bn2")

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilations: tuple[int, int],
        *,
        norm: tuple[Norm, float],
        atrous: Atrous = "none",
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride, dilations[0], atrous)
        self.bn1 = _make_norm(norm, channels)
        self.conv2 = _conv3x3(channels, channels, 1, dilations[1], atrous)
        self.bn2 = _make_norm(norm, channels)
        self.downsample = _downsample(in_channels, channels, stride, norm)

    def forward(
        self, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        out: Tensor = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out))
        out = out.add_(x if self.downsample is None else self.downsample(x))
        return (out if feedback is None else out.add_(feedback)).relu_()

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        _fold_pairs(self, 2)


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, and a shortcut."""

    expansion = 4
    layers = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilations: tuple[int, int],
        *,
        norm: tuple[Norm, float],
        atrous: Atrous = "none",
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = _make_norm(norm, channels)
        self.conv2 = _conv3x3(channels, channels, stride, dilations[0], atrous)
        self.bn2 = _make_norm(norm, channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = _make_norm(norm, channels * 4)
        self.downsample = _downsample(in_channels, channels * 4, stride, norm)

    def forward(
        self, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        out: Tensor = self.bn1(self.conv1(x)).relu_()
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        out = out.add_(x if self.downsample is None else self.downsample(x))
        return (out if feedback is None else out.add_(feedback)).relu_()

    def move_stride(self) -> None:
        """Give the stride of the 3 x 3 convolution to the first one."""
        assert isinstance(self.conv2, nn.Conv2d)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, (1, 1)

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        _fold_pairs(self, 3)
