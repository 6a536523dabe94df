"""From a pyramid and regions to masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.regions.roi_extractor import RoIExtractor, RoISource, fused

POOLED = 14
MASK_SIZE = 2 * POOLED

MaskNorm = Literal["none", "batch"]


class MaskBranch(nn.Module):
    """Features of regions, 14 x 14 cells, through 3 x 3 convolutions and a transposed one to a mask of 28 x 28.

    With adaptive features the first convolution has one copy for each level, and what they put out is fused.

    Args:
        source: of the features of regions.
        num_classes: C; background has a mask too, which is never asked for.
        num_convs: 3 x 3 convolutions before the transposed one.
        norm: of these convolutions: ``none``, or ``batch`` (torchvision's V2).
        hidden_dim: width of all convolutions.
        fully_connected: a second path beside the last convolution, two more convolutions and a linear layer to one mask
            of all classes, whose logits are added (PANet's fully-connected fusion).

    Source: He et al., Mask R-CNN, ICCV 2017, figure 4 (right); Liu et al., PANet, CVPR 2018, sections 3.2 and 3.3.
    Checked against torchvision 0.29.2's MaskRCNNHeads and MaskRCNNPredictor, and ShuLiu1993/PANet f055f71. Differs from
    the latter in that the fully-connected mask may also lower logits: theirs ends in a ReLU, which the paper has not.
    """

    def __init__(
        self,
        source: RoISource,
        num_classes: int,
        *,
        num_convs: int = 4,
        norm: MaskNorm = "none",
        hidden_dim: int = 256,
        fully_connected: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"mask_dim": hidden_dim})
        check_counts({"mask_convs": num_convs}, least=2)
        check_choice("mask_norm", norm, get_args(MaskNorm))
        self.pooling, self.fusion = RoIExtractor(source, output_size=POOLED), source.fusion

        def conv(width_in: int, width_out: int = hidden_dim, *, active: bool = True) -> nn.Module:
            if norm == "batch":
                return ConvNorm(width_in, width_out, 3, activation="relu" if active else None)
            plain = nn.Conv2d(width_in, width_out, 3, padding=1)
            return nn.Sequential(plain, nn.ReLU()) if active else plain

        self.first = nn.ModuleList(conv(source.channels, active=False) for _ in range(self.pooling.num_outputs))
        self.middle = nn.Sequential(*(conv(hidden_dim) for _ in range(num_convs - 2)))
        self.last = conv(hidden_dim)
        self.enlarge = nn.ConvTranspose2d(hidden_dim, hidden_dim, 2, 2)
        self.logits = nn.Conv2d(hidden_dim, num_classes + 1, 1)
        self.whole: nn.Sequential | None = None
        if fully_connected:
            narrow = max(1, hidden_dim // 2)
            linear = nn.Linear(narrow * POOLED**2, MASK_SIZE**2)
            self.whole = nn.Sequential(conv(hidden_dim), conv(hidden_dim, narrow), nn.Flatten(), linear)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
        labels: Int[Tensor, " r"],
    ) -> Float[Tensor, "r s s"]:
        """Logits of the mask of each region's class, 28 x 28 cells over its box.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network's input.
            images: the image of each box.
            labels: the class of each box.
        """
        return self.of_regions(self.pooling(maps, boxes, images), labels)

    def of_regions(
        self, regions: Sequence[Float[Tensor, "r c t t"]], labels: Int[Tensor, " r"]
    ) -> Float[Tensor, "r s s"]:
        """The same from features of regions: ``num_outputs`` maps of 14 x 14 cells each."""
        each = [layer(x) for layer, x in zip(self.first, regions, strict=True)]
        x = self.middle(fused(each, self.fusion).relu())
        large = self.enlarge(self.last(x)).relu()
        # Only the mask of the own class: the rows of the last convolution that belong to it.
        weights = self.logits.weight[labels].flatten(1)[:, None]  # r 1 d
        assert self.logits.bias is not None
        logits = torch.baddbmm(self.logits.bias[labels][:, None, None], weights, large.flatten(2))
        if self.whole is not None:
            logits = logits + self.whole(x)[:, None]
        return logits.view(-1, MASK_SIZE, MASK_SIZE)
