"""Towers of convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.layers.predictions import prediction_conv

TowerNorm = Literal["none", "group", "batch"]


class ConvTower(nn.Sequential):
    """3 x 3 convolutions with ReLU, by choice with a norm, that keep width and size.

    Args:
        channels: of input and output.
        num_convs: number of convolutions, at least 0.
        norm: ``none``; ``group``, of 32 groups where the width allows it; or ``batch``, one of each level's own.
        bias: convolutions have biases; where None, those without a norm after them.
        levels: names of the levels, which ``batch`` needs.

    Source: Lin et al., RetinaNet, ICCV 2017, section 4; weights start from a normal distribution of 0.01. ``batch``:
    RetinaSepBNHead of mmdetection 3.3.0, after Ghiasi et al., NAS-FPN, CVPR 2019.
    """

    def __init__(
        self,
        channels: int,
        num_convs: int,
        *,
        norm: TowerNorm = "none",
        bias: bool | None = None,
        levels: Sequence[str] = (),
    ) -> None:
        check_counts({"num_convs": num_convs}, least=0)
        check_choice("norm", norm, get_args(TowerNorm))
        layers: list[nn.Module] = []
        for _ in range(num_convs):
            layers.append(prediction_conv(channels, channels, bias=norm == "none" if bias is None else bias))
            if norm == "group":
                # With one channel per group, a map of one cell would have no variance.
                layers.append(nn.GroupNorm(math.gcd(32, max(1, channels // 2)), channels))
            elif norm == "batch":
                layers.append(LevelNorms(channels, levels))
            layers.append(nn.ReLU())
        super().__init__(*layers)

    def over_levels(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        """Apply the tower to each map, layer by layer, which trains faster than map by map."""
        levels = list(maps)
        for layer in self:
            if isinstance(layer, LevelNorms):
                levels = layer(levels)
            else:
                levels = conv_over_levels(layer, levels) if isinstance(layer, nn.Conv2d) else [layer(x) for x in levels]
        return levels


class LevelNorms(nn.Module):
    """Batch norm of each level's own, after a convolution that all levels share.

    Args:
        channels: of every level.
        levels: their names, at least one.
    """

    def __init__(self, channels: int, levels: Sequence[str]) -> None:
        super().__init__()
        if not levels:
            raise ValueError("batch norms of a tower are of each level's own, and it needs to know the levels")
        self.norms = nn.ModuleDict({level: nn.BatchNorm2d(channels) for level in levels})

    def forward(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        return [norm(x) for norm, x in zip(self.norms.values(), maps, strict=True)]
