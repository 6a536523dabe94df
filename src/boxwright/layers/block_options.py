"""Options of the blocks of ResNet, and the layers that they are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.conv import NORM_EPS, FrozenBatchNorm2d, Norm
from boxwright.layers.option_checks import check_choice
from boxwright.layers.switchable_conv import SwitchableConv2d

_NORMS: dict[str, type[nn.BatchNorm2d] | type[FrozenBatchNorm2d]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm2d,
}

_SQUEEZE_RATIO = 16
"""Channels of a block over those that squeeze-excitation looks at them through."""

Atrous = Literal["none", "switchable"]
BlockActivation = Literal["relu", "silu"]
SqueezedBlocks = Literal["none", "convolutions", "all"]
ShortcutActivation = Literal["none", "attention", "all"]

ACTIVATE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "silu": F.silu}
"""Activations by name. Their argument is not needed any more: a ReLU writes its result in its place."""


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
        return _NORMS[self.norm](channels, self.norm_eps)

    def conv3x3(self, in_channels: int, out_channels: int, stride: int, dilation: int) -> nn.Module:
        """Make a 3 x 3 convolution of its kind."""
        if self.atrous == "switchable":
            return SwitchableConv2d(in_channels, out_channels, stride=stride, dilation=dilation)
        return nn.Conv2d(in_channels, out_channels, 3, stride, padding=dilation, dilation=dilation, bias=False)

    def squeeze_excitation(self, channels: int) -> nn.Module | None:
        """Make the squeeze-excitation of a block, where blocks have one."""
        if self.options.squeeze_excitation == "none":
            return None
        activation = nn.ReLU if self.options.activation == "relu" else nn.SiLU
        # Where it is needed: importing it takes a second.
        from torchvision.ops import SqueezeExcitation

        squeezed = max(1, channels // _SQUEEZE_RATIO)
        block: nn.Module = SqueezeExcitation(channels, squeezed, activation=partial(activation, inplace=True))
        return block
