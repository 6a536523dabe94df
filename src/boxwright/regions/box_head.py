"""What looks at the features of a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.regions.roi_extractor import Fusion, fused

BoxHeadKind = Literal["two_linear", "four_conv"]


class BoxHead(nn.Module):
    """Features of regions to one vector each.

    ``two_linear``: linear, ReLU, linear, ReLU. ``four_conv``: four 3 x 3 convolutions with batch norm and ReLU, linear,
    ReLU. With several maps of a region the first layer has one copy for each, and what they put out is fused.

    Args:
        channels: of the maps.
        size: cells per side.
        num_maps: of a region: 1, or one per level with adaptive features.
        kind: which layers.
        hidden_dim: width of the vector.
        fusion: how maps are fused after the first layer: by the largest value, or by the sum.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.2 (``two_linear``); Wu and He, Group
    Normalization, ECCV 2018, with batch norm as in torchvision's V2 (``four_conv``); Liu et al., PANet, CVPR 2018,
    section 3.2 (several maps). Checked against torchvision 0.29.2's TwoMLPHead and FastRCNNConvFCHead. Differs in the
    order of a linear layer's inputs: cell after cell, where theirs is channel after channel.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        num_maps: int = 1,
        kind: BoxHeadKind = "two_linear",
        hidden_dim: int = 1024,
        fusion: Fusion = "max",
    ) -> None:
        super().__init__()
        check_counts({"hidden_dim": hidden_dim})
        check_choice("box_head", kind, get_args(BoxHeadKind))
        check_choice("fusion", fusion, get_args(Fusion))
        self.out_channels, self.fusion = hidden_dim, fusion
        first: list[nn.Module]
        rest: list[nn.Module]
        if kind == "two_linear":
            first = [nn.Sequential(CellsInRow(), nn.Linear(channels * size**2, hidden_dim)) for _ in range(num_maps)]
            rest = [nn.ReLU(), nn.Linear(hidden_dim, hidden_dim), nn.ReLU()]
        else:
            first = [ConvNorm(channels, channels, 3) for _ in range(num_maps)]
            rest = [nn.ReLU(), *(ConvNorm(channels, channels, 3, activation="relu") for _ in range(3))]
            rest += [CellsInRow(), nn.Linear(channels * size**2, hidden_dim), nn.ReLU()]
            for conv in (child for layer in (*first, *rest) for child in layer.modules()):
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.first, self.rest = nn.ModuleList(first), nn.Sequential(*rest)

    def forward(self, maps: Sequence[Float[Tensor, "r c s s"]]) -> Float[Tensor, "r d"]:
        each = [layer(x) for layer, x in zip(self.first, maps, strict=True)]
        return self.rest(fused(each, self.fusion))  # type: ignore[no-any-return]


class CellsInRow(nn.Module):
    """All numbers of a region in a row, cell after cell: as RoIAlign on a CPU leaves them, so that nothing is moved."""

    def forward(self, x: Float[Tensor, "r c s s"]) -> Float[Tensor, "r d"]:
        return x.permute(0, 2, 3, 1).flatten(1)
