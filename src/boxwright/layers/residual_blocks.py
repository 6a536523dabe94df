"""The blocks of ResNet: basic and bottleneck, with squeeze-excitation and stochastic depth where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import SqueezeExcitation, stochastic_depth

from boxwright.layers.conv import NORM_EPS, FrozenBatchNorm2d, Norm, fold
from boxwright.layers.option_checks import check_choice
from boxwright.layers.switchable_conv import SwitchableConv2d

NORMS: dict[str, type[nn.BatchNorm2d] | type[FrozenBatchNorm2d]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
}

SQUEEZE_RATIO = 16
"""Channels of a block over those that squeeze-excitation looks at them through."""

Atrous = Literal["none", "switchable"]
BlockActivation = Literal["relu", "silu"]
SqueezedBlocks = Literal["none", "convolutions", "all"]
ShortcutActivation = Literal["none", "attention", "all"]

ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "silu": F.silu}
"""Functions whose argument is not needed any more, with those that give them their result in its place."""


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options of the blocks of ResNet, beyond their convolutions.

    Args:
        activation: of the stem and of all blocks: ``relu``, or ``silu`` as in BoTNet-T.
        squeeze_excitation: blocks whose channels are weighted by the mean of the map, after the last norm and before
            the shortcut is added, through a sixteenth of the channels: ``none``; ``all``; or those with
            ``convolutions`` only, which leaves out BoTNet's with attention.
        drop_path: how often the last block is left out in training, image by image (stochastic depth); the earlier the
            block, the less often.
        start_as_shortcut: every new block puts out its shortcut alone: the scale of its last norm is 0.
        shortcut_activation: projections in shortcuts whose norm an activation follows: ``none``, as in ResNet; those
            of blocks with ``attention``, as in BoTNet's published code; ``all``.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018, figure 3; Huang et al., Deep Networks with Stochastic
    Depth, ECCV 2016, section 3. Both are torchvision's.
    """

    activation: BlockActivation = "relu"
    squeeze_excitation: SqueezedBlocks = "none"
    drop_path: float = 0.0
    start_as_shortcut: bool = False
    shortcut_activation: ShortcutActivation = "none"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, get_args(BlockActivation))
        check_choice("squeeze_excitation", self.squeeze_excitation, get_args(SqueezedBlocks))
        check_choice("shortcut_activation", self.shortcut_activation, get_args(ShortcutActivation))
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is at least 0 and below 1, not {self.drop_path}")


@dataclass(frozen=True)
class BlockForm:
    """The form that all blocks of a stage have.

    Args:
        norm: ``batch`` or ``frozen``.
        norm_eps: added to its variances.
        atrous: ``switchable`` makes every 3 x 3 convolution a ``SwitchableConv2d``.
        options: what there is beyond convolutions.
    """

    norm: Norm = "batch"
    norm_eps: float = NORM_EPS
    atrous: Atrous = "none"
    options: BlockOptions = BlockOptions()

    def make_norm(self, channels: int) -> nn.BatchNorm2d | FrozenBatchNorm2d:
        """Make a norm of its kind."""
        return NORMS[self.norm](channels, self.norm_eps)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Module:
        """Make a 3 x 3 convolution of its kind."""
        if self.atrous == "switchable":
            return SwitchableConv2d(in_channels, out_channels, stride=stride, dilation=dilation)
        return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)


class _ResidualBlock(nn.Module):
    """The second half of basic blocks and of bottlenecks: from the result of their convolutions to their output."""

    downsample: nn.Sequential | None
    se: SqueezeExcitation | None
    layers: tuple[str, ...]

    def __init__(self, form: BlockForm) -> None:
        super().__init__()
        self.drop_path = 0.0
        self.activate = ACTIVATE[form.options.activation]

    def add_shortcut(self, in_channels: int, out_channels: int, stride: int, form: BlockForm) -> None:
        """Make what comes after the last norm."""
        self.se, self.downsample = None, None
        if form.options.squeeze_excitation != "none":
            self.se = _squeeze_excitation(out_channels, form.options.activation)
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
            out = stochastic_depth(out, self.drop_path, "row")
        out = out.add_(x if self.downsample is None else self.downsample(x))
        return self.activate(out if feedback is None else out.add_(feedback))

    def start_as_shortcut(self) -> None:
        """Begin with a result of 0, to which the shortcut is added."""
        *_, conv, norm = (getattr(self, name) for name in self.layers)
        # A frozen norm's scale would stay 0.
        nn.init.zeros_(norm.weight if isinstance(norm, nn.BatchNorm2d) else conv.weight)

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

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        fold_pairs(self, 2)


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

    def fold_norms(self) -> None:
        """Put the norms into the convolutions, for inference."""
        fold_pairs(self, 3)


def fold_pairs(module: nn.Module, count: int) -> None:
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


def _squeeze_excitation(channels: int, activation: BlockActivation) -> SqueezeExcitation:
    made = nn.ReLU if activation == "relu" else nn.SiLU
    return SqueezeExcitation(channels, max(1, channels // SQUEEZE_RATIO), activation=partial(made, inplace=True))
