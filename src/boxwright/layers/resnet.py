"""The trunk of ResNet: stem, blocks and stages, for every backbone that has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.block_options import (
    ACTIVATE,
    Atrous,
    BlockActivation,
    BlockForm,
    BlockOptions,
)
from boxwright.layers.conv import NORM_EPS, Norm, check_norm_eps, fold
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.layers.switchable_conv import SwitchableConv2d
from boxwright.structures import Features, Level, ResidualBlock, Spec

StageBlocks = tuple[int, int, int, int]
BLOCKS_PER_STAGE: dict[int, StageBlocks] = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
STAGES = {"c2": "layer1", "c3": "layer2", "c4": "layer3", "c5": "layer4"}
Depth = Literal[18, 34, 50, 101, 152, 200]
StageName = Literal["c2", "c3", "c4", "c5"]
Dilation = Literal["none", "after_first", "all"]
C5Stride = Literal[1, 2]
StrideIn = Literal["3x3", "1x1"]


class ResNetBody(nn.Module):
    """Stem and stages up to the last level that goes out, with the names of torchvision in checkpoints.

    Args:
        depth: 18 and 34 have basic blocks; 50, 101, 152 and 200 bottlenecks, and so has a list of how many blocks c2,
            c3, c4 and c5 have.
        levels: stages that go out, fine to coarse.
        width: channels of the stem and of c2's inner convolutions.
        norm: ``batch`` or ``frozen``.
        frozen_stages: how many stages stay as they are loaded, their norms too; the stem is the first.
        dilation: of c5's 3 x 3 convolutions; see ``ResNet``.
        atrous: ``switchable`` makes every 3 x 3 convolution of c3, c4 and c5 a ``SwitchableConv2d``.
        stride_in: convolution of bottlenecks that has their stride.
        c5_stride: of c5 over c4; with 1, c5 has stride 16 and, unless ``dilation`` says otherwise, no dilation.
        norm_eps: added to the variances of norms, at least 0.
        block: what blocks have beyond their convolutions.
    """

    def __init__(
        self,
        *,
        depth: Depth | StageBlocks,
        levels: tuple[StageName, ...],
        width: int,
        norm: Norm,
        frozen_stages: int,
        dilation: Dilation = "none",
        atrous: Atrous = "none",
        c5_stride: C5Stride = 2,
        stride_in: StrideIn = "3x3",
        norm_eps: float = NORM_EPS,
        block: BlockOptions = BlockOptions(),
    ) -> None:
        super().__init__()
        lengths, has_bottlenecks = blocks_per_stage(depth), has_bottlenecks_at(depth)
        _check(levels, width, frozen_stages, dilation, atrous)
        check_norm_eps(norm_eps)
        check_choice("c5_stride", c5_stride, get_args(C5Stride))
        check_choice("stride_in", stride_in, get_args(StrideIn))
        if stride_in == "1x1" and not has_bottlenecks:
            raise ValueError(f"stride_in 1x1 is of bottlenecks, and depth {depth} has basic blocks")
        norms: list[Norm] = ["frozen" if stage < frozen_stages else norm for stage in range(5)]
        self.conv1 = nn.Conv2d(3, width, 7, 2, padding=3, bias=False)
        self.bn1 = BlockForm(norms[0], norm_eps).make_norm(width)
        self.activate, self.starts_as_shortcuts = ACTIVATE[block.activation], block.start_as_shortcut
        channels, total_stride = width, 4
        self.out_spec: Spec = {}
        # What lies beyond the last level that goes out would never be trained.
        self.built = list(STAGES)[: list(STAGES).index(levels[-1]) + 1]
        kind: type[BasicBlock] | type[Bottleneck] = Bottleneck if has_bottlenecks else BasicBlock
        for index, name in enumerate(self.built):
            dilated = dilation if name == "c5" else "none"
            stride = 2 if index > 0 and dilated == "none" else 1
            if name == "c5":
                stride = min(stride, c5_stride)
            total_stride *= stride
            form = BlockForm(norms[index + 1], norm_eps, "none" if name == "c2" else atrous, block)
            blocks = []
            for position in range(lengths[index]):
                inner, dilations = width * 2**index, _dilations(dilated, position)
                blocks.append(kind(channels, inner, stride, dilations, form))
                channels, stride = inner * kind.expansion, 1
            self.add_module(STAGES[name], nn.Sequential(*blocks))
            if name in levels:
                self.out_spec[name] = Level(channels, total_stride)
        _set_drop_paths([part for name in self.built for part in getattr(self, STAGES[name])], block.drop_path)
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
        if self.starts_as_shortcuts:
            for name in self.built:
                for block in getattr(self, STAGES[name]):
                    block.start_as_shortcut()

    def forward(self, images: Float[Tensor, "b 3 h w"], feedback: Features | None = None) -> Features:
        """Compute the levels of images.

        Args:
            images: ready for the network.
            feedback: by stage, what is added to the sum of its first block before the activation.
        """
        x = F.max_pool2d(self.activate(self.bn1(self.conv1(images))), kernel_size=3, stride=2, padding=1)
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
                yield ResidualBlock(tuple(f"{STAGES[name]}.{i}.{layer}" for layer in block.list_layers()))

    def fold_norms(self) -> None:
        """Put the stem's norm into its convolution, for inference; the blocks do so themselves."""
        _fold_pairs(self, 1)


def blocks_per_stage(depth: int | Sequence[int]) -> StageBlocks:
    """Count the blocks of c2, c3, c4 and c5.

    Raises:
        ValueError: no such depth.
    """
    if isinstance(depth, int):
        check_choice("depth", depth, BLOCKS_PER_STAGE)
        return BLOCKS_PER_STAGE[depth]
    if len(depth) != len(STAGES) or min(depth) < 1:
        raise ValueError(f"depth lists how many blocks, at least 1, each of {list(STAGES)} has, not {list(depth)}")
    c2, c3, c4, c5 = depth
    return c2, c3, c4, c5


def has_bottlenecks_at(depth: int | Sequence[int]) -> bool:
    """Tell whether blocks are bottlenecks, and not basic ones."""
    return not isinstance(depth, int) or depth >= 50


def _set_drop_paths(blocks: Sequence[BasicBlock | Bottleneck], last: float) -> None:
    """Let the first block be left out never, the last one as often as asked for, and those between in proportion."""
    for position, block in enumerate(blocks):
        block.drop_path = last * position / max(len(blocks) - 1, 1)


def _check(levels: tuple[StageName, ...], width: int, frozen_stages: int, dilation: Dilation, atrous: Atrous) -> None:
    """Raise ``ValueError`` for options that there are not."""
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


class _ResidualBlock(nn.Module):
    """The second half of basic blocks and of bottlenecks: from the result of their convolutions to their output."""

    downsample: nn.Sequential | None
    se: nn.Module | None
    layers: tuple[str, ...]

    def __init__(self, form: BlockForm) -> None:
        super().__init__()
        self.drop_path = 0.0
        self.activate = ACTIVATE[form.options.activation]

    def add_shortcut(self, in_channels: int, out_channels: int, stride: int, form: BlockForm) -> None:
        """Make what comes after the last norm."""
        self.se, self.downsample = form.squeeze_excitation(out_channels), None
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(conv, form.make_norm(out_channels))
            if form.options.shortcut_activation == "all":
                self.activate_shortcut(form.options.activation)

    def activate_shortcut(self, activation: BlockActivation) -> None:
        """Put an activation after the norm of the shortcut's projection, where there is one."""
        if self.downsample is not None:
            self.downsample.append(nn.ReLU(inplace=True) if activation == "relu" else nn.SiLU())

    def finish(
        self, out: Float[Tensor, "b c h w"], x: Float[Tensor, "b _c _h _w"], feedback: Float[Tensor, "b c h w"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Weight the channels, leave out the block by chance, add the shortcut, activate."""
        if self.se is not None:
            out = self.se(out)
        if self.training and self.drop_path:
            # Where it is needed: importing it takes a second.
            from torchvision.ops import stochastic_depth

            out = stochastic_depth(out, self.drop_path, "row")
        out = out.add_(x if self.downsample is None else self.downsample(x))
        return self.activate(out if feedback is None else out.add_(feedback))

    def start_as_shortcut(self) -> None:
        """Begin with a result of 0, to which the shortcut is added."""
        *_, conv, norm = (getattr(self, name) for name in self.layers)
        # A frozen norm's scale would stay 0.
        nn.init.zeros_(norm.weight if isinstance(norm, nn.BatchNorm2d) else conv.weight)

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        _fold_pairs(self, len(self.layers) // 2)
        if self.downsample is not None and not isinstance(self.downsample[1], nn.Identity):
            conv, norm, *_ = self.downsample
            assert isinstance(conv, nn.Conv2d)
            self.downsample[0], self.downsample[1] = fold(conv, norm), nn.Identity()

    def options(self) -> BlockOptions:
        """Tell what it has beyond its convolutions and norms."""
        return BlockOptions(
            activation="relu" if self.activate is ACTIVATE["relu"] else "silu",
            squeeze_excitation="none" if self.se is None else "all",
            drop_path=self.drop_path,
            shortcut_activation="none" if self.downsample is None or len(self.downsample) < 3 else "all",
        )

    def list_layers(self) -> tuple[str, ...]:
        """List the layers in the order of execution."""
        return self.layers if self.se is None else (*self.layers, "se")


class BasicBlock(_ResidualBlock):
    """Two 3 x 3 convolutions, the stride in the first, and a shortcut."""

    expansion = 1
    layers = ("conv1", "bn1", "conv2", "bn2")

    def __init__(
        self, in_channels: int, channels: int, stride: int, dilations: tuple[int, int], form: BlockForm = BlockForm()
    ) -> None:
        super().__init__(form)
        self.conv1 = form.conv3x3(in_channels, channels, stride, dilations[0])
        self.bn1 = form.make_norm(channels)
        self.conv2 = form.conv3x3(channels, channels, 1, dilations[1])
        self.bn2 = form.make_norm(channels)
        self.add_shortcut(in_channels, channels, stride, form)

    def forward(
        self, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        out = self.activate(self.bn1(self.conv1(x)))
        return self.finish(self.bn2(self.conv2(out)), x, feedback)


class Bottleneck(_ResidualBlock):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, and a shortcut."""

    expansion = 4
    layers = ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3")

    def __init__(
        self, in_channels: int, channels: int, stride: int, dilations: tuple[int, int], form: BlockForm = BlockForm()
    ) -> None:
        super().__init__(form)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = form.make_norm(channels)
        self.conv2 = form.conv3x3(channels, channels, stride, dilations[0])
        self.bn2 = form.make_norm(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = form.make_norm(channels * 4)
        self.add_shortcut(in_channels, channels * 4, stride, form)

    def forward(
        self, x: Float[Tensor, "b c h w"], feedback: Float[Tensor, "b c_out h_out w_out"] | None = None
    ) -> Float[Tensor, "b c_out h_out w_out"]:
        out = self.activate(self.bn1(self.conv1(x)))
        out = self.activate(self.bn2(self.conv2(out)))
        return self.finish(self.bn3(self.conv3(out)), x, feedback)

    def move_stride(self) -> None:
        """Give the stride of the 3 x 3 convolution to the first one."""
        assert isinstance(self.conv2, nn.Conv2d)
        self.conv1.stride, self.conv2.stride = self.conv2.stride, (1, 1)


def _fold_pairs(module: nn.Module, count: int) -> None:
    """Fold bn1 into conv1, bn2 into conv2, ... up to ``count``.

    The norm after what is no plain convolution stays: after attention, and after a switchable convolution, where its
    scale would have to be divided out of the context again, and may be zero.
    """
    for i in range(1, count + 1):
        conv, norm = getattr(module, f"conv{i}"), getattr(module, f"bn{i}")
        if isinstance(conv, nn.Conv2d) and not isinstance(norm, nn.Identity):
            setattr(module, f"conv{i}", fold(conv, norm))
            setattr(module, f"bn{i}", nn.Identity())
