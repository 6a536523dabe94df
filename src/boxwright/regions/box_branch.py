"""From a pyramid and regions to classes and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.predictions import run_in_full_precision
from boxwright.ops.boxes import at_least_float32
from boxwright.regions.box_head import BoxHead, BoxHeadKind
from boxwright.regions.roi_extractor import RoIExtractor, RoISource

POOLED = 7


class BoxPrediction(NamedTuple):
    """What is said of each region.

    ``logits`` are of the classes and, last, of background; ``deltas`` are deviations from the region for each of these,
    or one for all.
    """

    logits: Float[Tensor, "r k"]
    deltas: Float[Tensor, "r c 4"]

    def of_images(self, count: int) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n c 4"]]:
        """Scores in [0, 1] and deviations, of the classes without background, of as many regions of each image."""
        scores = at_least_float32(self.logits).softmax(-1)[:, :-1]
        deltas = self.deltas[:, :-1] if self.deltas.shape[1] > 1 else self.deltas
        return scores.unflatten(0, (count, -1)), deltas.unflatten(0, (count, -1))


class BoxBranch(nn.Module):
    """Features of regions, 7 x 7 cells, to one vector; from it one linear layer for classes and one for boxes.

    Args:
        source: of the features of regions.
        num_classes: C; background is one more.
        kind: of the layers that make the vector, see ``BoxHead``.
        hidden_dim: width of the vector.
        boxes_per_class: a box for each class and background, else one for all.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2. Checked against torchvision 0.29.2's FastRCNNPredictor.
    """

    def __init__(
        self,
        source: RoISource,
        num_classes: int,
        *,
        kind: BoxHeadKind = "two_linear",
        hidden_dim: int = 1024,
        boxes_per_class: bool = True,
    ) -> None:
        super().__init__()
        self.pooling = RoIExtractor(source, output_size=POOLED)
        self.head = BoxHead(
            source.channels,
            POOLED,
            num_maps=self.pooling.num_outputs,
            kind=kind,
            hidden_dim=hidden_dim,
            fusion=source.fusion,
        )
        self.classes = nn.Linear(hidden_dim, num_classes + 1)
        self.boxes = nn.Linear(hidden_dim, 4 * (num_classes + 1 if boxes_per_class else 1))
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
            images: the image of each box.
        """
        return self.predicted(self.head(self.pooling(maps, boxes, images)))

    def predicted(self, vectors: Float[Tensor, "r d"]) -> BoxPrediction:
        """Classes and boxes from the vectors of regions."""
        return BoxPrediction(self.classes(vectors), run_in_full_precision(self.boxes, vectors).unflatten(1, (-1, 4)))
