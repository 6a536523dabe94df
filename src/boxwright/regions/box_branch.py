"""Box branch of the second stage: classes and boxes of regions, and their losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.predictions import run_in_full_precision
from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, SMOOTH_L1_BETA, Weights, decode_deltas, encode_deltas
from boxwright.ops.box_matching import BACKGROUND
from boxwright.ops.boxes import at_least_float32, generalized_iou
from boxwright.regions.auxiliary_levels import AuxiliaryLevels, needs_auxiliary
from boxwright.regions.options import BoxBranchOptions, BoxOptions, RegionBoxLoss
from boxwright.regions.roi_extractor import RoIExtractor, RoISource, fuse_maps
from boxwright.regions.sampling import SampledRegions
from boxwright.structures import ClassRows, Features, Spec

BOX_CELLS = 7

FAST_RCNN_BETA = 1.0
"""Distance from which smooth L1 is linear in the paper's equation 3 and, for regions, in Detectron."""


class BoxPrediction(NamedTuple):
    """Predictions of each region.

    ``logits`` are of the classes and, last, of background; ``deltas`` are offsets from the region for each of these, or
    one for all.
    """

    logits: Float[Tensor, "r k"]
    deltas: Float[Tensor, "r c 4"]

    def of_images(self, count: int) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n c 4"]]:
        """Scores in [0, 1] and deltas, of the classes without background, of equally many regions of each image."""
        scores = at_least_float32(self.logits).softmax(-1)[:, :-1]
        deltas = self.deltas[:, :-1] if self.deltas.shape[1] > 1 else self.deltas
        return scores.unflatten(0, (count, -1)), deltas.unflatten(0, (count, -1))


class BoxHead(nn.Module):
    """Features of regions to one vector each.

    ``two_linear``: linear, ReLU, linear, ReLU. ``four_conv``: four 3 x 3 convolutions with batch norm and ReLU, linear,
    ReLU. With several maps of a region the first layer has one copy for each, and their maximum or sum follows.

    Args:
        source: of the features of regions.
        num_maps: of a region: 1, or one per level with adaptive features.
        options: kind of layers and width of the vector.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.2 (``two_linear``); Wu and He, Group
    Normalization, ECCV 2018, with batch norm as in torchvision's V2 (``four_conv``); Liu et al., PANet, CVPR 2018,
    section 3.2 (several maps). Checked against torchvision 0.29.2's TwoMLPHead and FastRCNNConvFCHead. Differs in the
    order of a linear layer's inputs: cell after cell, where theirs is channel after channel.
    """

    def __init__(self, source: RoISource, num_maps: int, options: BoxBranchOptions) -> None:
        super().__init__()
        self.fusion = source.options.fusion
        channels, width = source.channels, options.hidden_dim
        first: list[nn.Module]
        rest: list[nn.Module]
        if options.head == "two_linear":
            first = [nn.Sequential(FlattenCells(), nn.Linear(channels * BOX_CELLS**2, width)) for _ in range(num_maps)]
            rest = [nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        else:
            first = [ConvNorm(channels, channels, 3) for _ in range(num_maps)]
            rest = [nn.ReLU(), *(ConvNorm(channels, channels, 3, activation="relu") for _ in range(3))]
            rest += [FlattenCells(), nn.Linear(channels * BOX_CELLS**2, width), nn.ReLU()]
            for conv in (child for layer in (*first, *rest) for child in layer.modules()):
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        self.first, self.rest = nn.ModuleList(first), nn.Sequential(*rest)

    def forward(self, maps: Sequence[Float[Tensor, "r c s s"]]) -> Float[Tensor, "r d"]:
        return cast(Tensor, self.rest(fuse_maps(self.first_layers(maps), self.fusion)))

    def first_layers(self, maps: Sequence[Float[Tensor, "r c s s"]]) -> list[Float[Tensor, "r ..."]]:
        """Apply the layers before fusion, to each map its own."""
        return [layer(x) for layer, x in zip(self.first, maps, strict=True)]


class FlattenCells(nn.Module):
    """All numbers of a region in a row, cell after cell: as RoIAlign on a CPU leaves them, so that nothing is moved."""

    def forward(self, x: Float[Tensor, "r c s s"]) -> Float[Tensor, "r d"]:
        return x.permute(0, 2, 3, 1).flatten(1)


class BoxBranch(nn.Module):
    """Features of regions, 7 x 7 cells, to one vector; from it one linear layer for classes and one for boxes.

    Args:
        source: of the features of regions.
        num_classes: C; background is one more.
        options: of the layers that make the vector.
        boxes_per_class: a box for each class and background, else one for all.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2. Checked against torchvision 0.29.2's FastRCNNPredictor.
    """

    def __init__(
        self, source: RoISource, num_classes: int, options: BoxBranchOptions, *, boxes_per_class: bool = True
    ) -> None:
        super().__init__()
        self.pooling = RoIExtractor(source, output_size=BOX_CELLS)
        self.head = BoxHead(source, self.pooling.num_outputs, options)
        self.classes = nn.Linear(options.hidden_dim, num_classes + 1)
        self.boxes = nn.Linear(options.hidden_dim, 4 * (num_classes + 1 if boxes_per_class else 1))
        for linear, std in ((self.classes, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(linear.weight, std=std)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
    ) -> BoxPrediction:
        """Predict classes and boxes of regions.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network input.
            images: the image of each box.
        """
        return self.predict(self.head(self.pooling(maps, boxes, images)))

    def level_weights(
        self, maps: Sequence[Float[Tensor, "b c _h _w"]], boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r l"]:
        """Compute how much of each region's features comes from each level, in [0, 1].

        Of the level of the region, 1; of levels with weights (``soft``), their mean; of several maps, the fraction of
        numbers whose maximum is on the level (as figure 3 of PANet counts), or all alike where they are summed.

        Args:
            maps: as for ``forward``.
            boxes: likewise.
            images: likewise.
        """
        if self.pooling.num_outputs == 1:
            return self.pooling.level_weights(maps, boxes, images)
        each = self.head.first_layers(self.pooling(maps, boxes, images))
        if self.head.fusion != "max":
            return boxes.new_full((len(boxes), len(each)), 1 / len(each))
        winners = torch.stack(each).argmax(0).flatten(1)
        return torch.stack([(winners == level).float().mean(1) for level in range(len(each))], 1)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layers with rows for each class."""
        per_class = self.boxes.out_features == 4 * self.classes.out_features
        classes = ClassRows(others=1, softmax=True)
        return {"classes": classes} | ({"boxes": ClassRows(rows=4, others=1)} if per_class else {})

    def predict(self, vectors: Float[Tensor, "r d"]) -> BoxPrediction:
        """Predict classes and boxes from the vectors of regions."""
        return BoxPrediction(self.classes(vectors), run_in_full_precision(self.boxes, vectors).unflatten(1, (-1, 4)))


class AuxiliaryBoxHead(AuxiliaryLevels):
    """One box branch, shared by the auxiliary levels, that sees each region on each of them.

    Trained on the regions of the main branch, it asks every level for the same meaning before levels are summed.

    Args:
        in_spec: the levels that come in; those that are not auxiliary are left out.
        num_classes: C.
        hidden_dim: width of the branch's vector.

    Raises:
        ValueError: there is no auxiliary level.

    Source: Guo et al., AugFPN, CVPR 2020, section 3.1. Checked against AuxAllLevelRoIExtractor and
    AuxiliarySharedFCBBoxHead of Gus-Guo/AugFPN, commit ffc7e5e.
    """

    def __init__(self, in_spec: Spec, num_classes: int, *, hidden_dim: int) -> None:
        super().__init__(in_spec, output_size=BOX_CELLS)
        self.branch = BoxBranch(self.source, num_classes, BoxBranchOptions(hidden_dim=hidden_dim))

    def forward(
        self, features: Features, boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> Sequence[BoxPrediction]:
        """Predict classes and boxes of the regions, level by level."""
        return [self.branch.predict(self.branch.head(maps)) for maps in self.extract(features, boxes, images)]


def build_auxiliary_box_head(in_spec: Spec, num_classes: int, options: BoxOptions) -> AuxiliaryBoxHead | None:
    """Build the auxiliary branch; None where its losses have no weight or there is no auxiliary level."""
    if not needs_auxiliary(in_spec, options.aux_weight):
        return None
    return AuxiliaryBoxHead(in_spec, num_classes, hidden_dim=options.hidden_dim)


def box_losses(
    prediction: BoxPrediction,
    regions: SampledRegions,
    images_per_process: float,
    *,
    weights: Weights = FAST_RCNN_WEIGHTS,
    beta: float = SMOOTH_L1_BETA,
    box_loss: RegionBoxLoss = "smooth_l1",
) -> dict[str, Float[Tensor, ""]]:
    """Compute ``cross_entropy`` of all regions and ``smooth_l1``, or ``giou``, of those with an object.

    Both are divided by the regions of an image, and averages over images.

    Args:
        prediction: of the regions.
        regions: the regions with their targets.
        images_per_process: of the optimizer step.
        weights: of the deltas, see ``encode_deltas``.
        beta: distance from which smooth L1 is linear; 0 for L1.
        box_loss: ``smooth_l1`` of deltas, or ``giou`` of boxes.

    Source: Girshick, Fast R-CNN, ICCV 2015, equations 1 to 3. Checked against torchvision 0.29.2's RoIHeads, which
    divides by the regions of the batch: the same number wherever images have equally many.
    """
    logits, deltas = prediction
    with torch.autocast(logits.device.type, enabled=False):
        weight = regions.weights / images_per_process
        classes = torch.where(regions.labels == BACKGROUND, logits.shape[1] - 1, regions.labels)
        entropy = F.cross_entropy(at_least_float32(logits), classes, reduction="none")
        (positive,) = torch.where(regions.labels != BACKGROUND)
        own = regions.labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        boxes, targets, predicted = regions.boxes[positive], regions.target_boxes[positive], deltas[positive, own]
        if box_loss == "giou":
            distance = 1 - generalized_iou(decode_deltas(predicted, boxes, weights=weights), targets)
        else:
            target = encode_deltas(targets, boxes, weights=weights)
            distance = F.smooth_l1_loss(at_least_float32(predicted), target, reduction="none", beta=beta).sum(-1)
        return {"cross_entropy": (entropy * weight).sum(), box_loss: (distance * weight[positive]).sum()}


def auxiliary_losses(
    levels: Sequence[BoxPrediction], regions: SampledRegions, images_per_process: float, *, weight: float
) -> dict[str, Float[Tensor, ""]]:
    """Compute ``aux_cross_entropy`` and ``aux_smooth_l1``: the losses of every level, summed; none without levels.

    Smooth L1 is the paper's, linear from a distance of 1, whatever that of the main branch is.

    Args:
        levels: predictions of the regions on each of them.
        regions: the regions with their targets.
        images_per_process: of the optimizer step.
        weight: of the sums.

    Source: Guo et al., AugFPN, CVPR 2020, section 3.1, equation 1. Checked against AuxiliaryBBoxHead of
    Gus-Guo/AugFPN, commit ffc7e5e.
    """
    each = [box_losses(level, regions, images_per_process, beta=FAST_RCNN_BETA) for level in levels]
    if not each:
        return {}
    return {f"aux_{name}": weight * torch.stack([terms[name] for terms in each]).sum() for name in each[0]}
