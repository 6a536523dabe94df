"""From a pyramid and regions to classes and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.box_head import BoxHead
from boxwright.layers.region_pooling import RegionPooling


class BoxPrediction(NamedTuple):
    """What is said of each region.

    ``logits`` are of the classes and, last, of background; ``deltas`` are deviations from the region for each of these,
    or one for all.
    """

    logits: Float[Tensor, "r k"]
    deltas: Float[Tensor, "r c 4"]


class BoxBranch(nn.Module):
    """Features of regions, then a linear layer for classes and one for boxes.

    Args:
        pooling: takes the features from the pyramid.
        head: makes one vector of them.
        num_classes: C; background is one more.
        boxes_per_class: a box for each class and background, else one for all.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2. Checked against torchvision 0.29.2's FastRCNNPredictor.
    """

    def __init__(
        self, pooling: RegionPooling, head: BoxHead, num_classes: int, *, boxes_per_class: bool = True
    ) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head
        self.classes = nn.Linear(head.out_channels, num_classes + 1)
        self.boxes = nn.Linear(head.out_channels, 4 * (num_classes + 1 if boxes_per_class else 1))
        for linear, std in ((self.classes, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
    ) -> BoxPrediction:
        """Look at regions.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network's input.
            images: the picture of each box.
        """
        vectors = self.head(self.pooling(maps, boxes, images))
        return BoxPrediction(self.classes(vectors), self.boxes(vectors).unflatten(1, (-1, 4)))
