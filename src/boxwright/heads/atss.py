"""ATSS's head: one anchor at every cell, matched by a threshold that each object sets itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.dense.atss_matching import match_adaptively
from boxwright.dense.centerness import compute_centerness
from boxwright.dense.head import DenseHead, DenseMaps, Maps
from boxwright.dense.options import AnchorOptions, DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.towers import ConvTower, TowerNorm
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_counts
from boxwright.layers.predictions import prediction_conv, run_in_full_precision
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, decode_deltas
from boxwright.ops.box_matching import gather_matches
from boxwright.ops.boxes import at_least_float32, generalized_iou, xyxy_to_cxcywh
from boxwright.structures import LossTotals, Spec, Targets

__all__ = ["ATSS"]

_ANCHORS = AnchorOptions(scale=8.0, octave_steps=1, aspect_ratios=(1.0,), whole_pixels=False)
_FOCAL = FocalOptions()
_DETECTION = DenseDetectionOptions(nms_threshold=0.6, max_detections=100)


class ATSS(DenseHead):
    """Two towers that predict a class, a box and its centerness for the anchors at each cell.

    score = sqrt(class * centerness). Anchors are matched with objects by ``match_adaptively``.

    Args:
        in_spec: the levels that come in, fine to coarse; the head's convolutions are the same for all.
        num_classes: C.
        channels: width of the towers; levels of another width are projected to it. Where None, the width of the
            levels if they share one, else 256.
        num_convs: convolutions in each of the two towers, one for classes, one for boxes and centerness.
        norm: after each of them: ``group`` norm, ``none``, or ``batch``, of each level's own.
        anchors: sizes and shapes of the anchors of a cell.
        top_k: candidates of an object on each level: the anchors nearest to its center.
        box_weight: of the GIoU loss.
        focal: constants of the class loss.
        detection: thresholds and limits of detections.

    Source: Zhang et al., ATSS, CVPR 2020, with the anchor boxes of section 4.2. Checked against CoATSSHead of
    Sense-X/Co-DETR 2665352, which is mmdetection's ATSSHead: outputs, matched anchors, every loss term, gradients. As
    there, an image without matched anchors counts as one with one. Differs in anchors in the padding of a batch, which
    may be candidates here.
    """

    decode_boxes = staticmethod(partial(decode_deltas, weights=FAST_RCNN_WEIGHTS))

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 4,
        norm: TowerNorm = "group",
        anchors: AnchorOptions = _ANCHORS,
        top_k: int = 9,
        box_weight: float = 2.0,
        focal: FocalOptions = _FOCAL,
        detection: DenseDetectionOptions = _DETECTION,
    ) -> None:
        check_counts({"top_k": top_k})
        if box_weight < 0:
            raise ValueError(f"box_weight is at least 0, not {box_weight}")

        super().__init__(
            in_spec,
            num_classes,
            channels=channels,
            make_anchors=anchors.make_anchors,
            detection=detection,
            anchor_grid=anchors.anchor_grid,
        )
        self.top_k, self.box_weight, self.focal = top_k, box_weight, focal
        num_anchors, width = self.base_anchors.shape[1], self.input_projection.channels
        levels = self.input_projection.levels
        self.class_tower = ConvTower(width, num_convs, norm=norm, levels=levels)
        self.box_tower = ConvTower(width, num_convs, norm=norm, levels=levels)
        # Every class starts at probability 0.01.
        self.classes = prediction_conv(width, num_anchors * num_classes, value=-math.log(99))
        self.boxes = prediction_conv(width, num_anchors * 4)
        self.centerness = prediction_conv(width, num_anchors)
        self.scales = nn.Parameter(torch.ones(len(levels)))

    def predict(self, maps: Maps) -> DenseMaps:
        """Apply the towers to levels of one width."""
        class_maps, box_maps = self.class_tower.over_levels(maps), self.box_tower.over_levels(maps)
        return DenseMaps(
            conv_over_levels(self.classes, class_maps),
            [run_in_full_precision(self.boxes, x) * scale for x, scale in zip(box_maps, self.scales, strict=True)],
            [self.centerness(x) for x in box_maps],
        )

    def match(self, anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """Match the anchors of all levels with objects."""
        return match_adaptively(anchors, boxes, top_k=self.top_k)

    def loss(
        self, output: DenseOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all anchors and ``centerness`` over the matched ones, divided by how many are matched.

        And ``giou`` over the matched ones, weighted by their centerness and divided by the sum of these weights.

        Args:
            output: of these images.
            targets: one per image.
            totals: of the whole optimizer step, with matches and their weights; of these targets where None.
        """
        matched = self.match_targets(output.anchors, targets)
        image, anchor, boxes, labels = gather_matches(matched, targets)
        assert output.centerness is not None
        with torch.autocast(boxes.device.type, enabled=False):
            anchors = torch.cat(output.anchors)[anchor]
            target = compute_centerness(xyxy_to_cxcywh(anchors)[:, :2], boxes.to(anchors.dtype))
            totals = totals or LossTotals.of(targets)._replace(
                matches=_count(matched), match_weights=float(target.sum())
            )
            predicted = self.decode_boxes(torch.cat(output.offsets, 1)[image, anchor], anchors)
            centerness = at_least_float32(torch.cat(output.centerness, 1)[image, anchor, 0])
            giou = (target * (1 - generalized_iou(predicted, boxes))).sum()
            central = F.binary_cross_entropy_with_logits(centerness, target, reduction="sum")
            focal = summed_focal_loss_of_levels(output.logits, labels, alpha=self.focal.alpha, gamma=self.focal.gamma)
            return {
                "focal": focal / totals.matches_per_process,
                "giou": self.box_weight * giou / totals.match_weights_per_process,
                "centerness": central / totals.matches_per_process,
            }

    def count_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> int:
        """Count the matched anchors, at least one for each image, at a network input of this (height, width)."""
        return _count(self.match_targets(self.anchors_of(input_size), targets))

    def weigh_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> float:
        """Add up the centerness of the matched anchors, likewise."""
        anchors = self.anchors_of(input_size)
        _, anchor, boxes, _ = gather_matches(self.match_targets(anchors, targets), targets)
        points = xyxy_to_cxcywh(torch.cat(anchors)[anchor])[:, :2]
        return float(compute_centerness(points, boxes.to(points.dtype)).sum())


def _count(matched: Int[Tensor, "b a"]) -> int:
    return int((matched >= 0).sum(1).clamp(min=1).sum())
