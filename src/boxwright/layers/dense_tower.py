"""What dense heads share: levels of one width, a tower of convolutions, predictions in rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.ops.box_deltas import decode_deltas
from boxwright.structures import Features, Spec, head_levels

DEFAULT_CHANNELS = 256

TowerNorm = Literal["none", "group"]


class EqualWidths(nn.ModuleDict):
    """Brings levels to one width: 1 x 1 convolutions where levels have another, nothing where none has.

    Args:
        in_spec: the levels that come in; auxiliary ones are left out.
        channels: the width; where None, that of the levels if they share one, else 256.
    """

    def __init__(self, in_spec: Spec, channels: int | None) -> None:
        super().__init__()
        if channels is not None:
            check_counts({"channels": channels})
        self.levels = head_levels(in_spec)
        widths = {in_spec[name].channels for name in self.levels}
        self.channels = channels or (widths.pop() if len(widths) == 1 else DEFAULT_CHANNELS)
        for name in self.levels:
            if in_spec[name].channels != self.channels:
                conv = nn.Conv2d(in_spec[name].channels, self.channels, 1)
                nn.init.kaiming_uniform_(conv.weight, a=1)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
                self[name] = conv

    def forward(self, features: Features) -> list[Float[Tensor, "b c _h _w"]]:
        return [self[name](features[name]) if name in self else features[name] for name in self.levels]


class AnchorOutput(NamedTuple):
    """What a head predicts from anchors, level by level, fine to coarse.

    ``deltas`` are deviations from ``anchors``, which are corner boxes in pixels of the network's input.
    """

    logits: tuple[Float[Tensor, "b _n k"], ...]
    deltas: tuple[Float[Tensor, "b _n 4"], ...]
    anchors: tuple[Float[Tensor, "_n 4"], ...]

    def prediction(self) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4"]]:
        """Logits and corner boxes, in pixels of the network's input, of all levels together."""
        return torch.cat(self.logits, 1), decode_deltas(torch.cat(self.deltas, 1), torch.cat(self.anchors))


class ConvTower(nn.Sequential):
    """3 x 3 convolutions with ReLU, by choice with group norm, that keep width and size.

    Args:
        channels: of input and output.
        num_convs: how many; at least 0.
        norm: ``none``, or ``group``, of 32 groups where the width allows it.
        bias: convolutions have biases; where None, those without a norm after them.

    Source: Lin et al., RetinaNet, ICCV 2017, section 4; weights start from a normal distribution of 0.01.
    """

    def __init__(self, channels: int, num_convs: int, *, norm: TowerNorm = "none", bias: bool | None = None) -> None:
        check_counts({"num_convs": num_convs}, least=0)
        check_choice("norm", norm, get_args(TowerNorm))
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers.append(small_conv(channels, channels, bias=norm == "none" if bias is None else bias))
            if norm == "group":
                # With one channel per group, a map of one cell would have no variance.
                layers.append(nn.GroupNorm(math.gcd(32, max(1, channels // 2)), channels))
            layers.append(nn.ReLU())
        super().__init__(*layers)

    def over_levels(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        """The tower of each map, layer by layer, which trains faster than map by map."""
        levels = list(maps)
        for layer in self:
            levels = conv_over_levels(layer, levels) if isinstance(layer, nn.Conv2d) else [layer(x) for x in levels]
        return levels


def small_conv(in_channels: int, out_channels: int, *, bias: bool = True, value: float = 0.0) -> nn.Conv2d:
    """A 3 x 3 convolution with weights from a normal distribution of 0.01 and biases of ``value``."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, value)
    return conv


def in_rows(maps: Sequence[Float[Tensor, "b _ak _h _w"]], size: int) -> list[Float[Tensor, "b _n k"]]:
    """Predictions of each level as rows of ``size`` numbers, cell by cell: b (a k) h w -> b (h w a) k."""
    return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size) for x in maps]
