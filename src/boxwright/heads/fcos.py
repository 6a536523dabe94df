"""FCOS's head: every point predicts the distances to the four sides of its box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.dense.atss_matching import match_adaptively
from boxwright.dense.centerness import compute_centerness
from boxwright.dense.head import DenseHead, DenseMaps, Maps
from boxwright.dense.options import DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.point_matching import match_points, scale_ranges
from boxwright.dense.towers import ConvTower, TowerNorm
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts, check_fractions
from boxwright.layers.predictions import prediction_conv, run_in_full_precision
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.anchors import AnchorGrid
from boxwright.ops.box_matching import gather_matches
from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, generalized_iou, xyxy_to_cxcywh
from boxwright.structures import LossTotals, Spec, Targets

__all__ = ["FCOS"]

ATSS_SCALE = 8.0
"""Sides of ATSS's anchors, in sides of a cell."""

_FOCAL = FocalOptions()
_DETECTION = DenseDetectionOptions(score_threshold=0.2, nms_threshold=0.6, max_detections=100)


def decode_distances(distances: Float[Tensor, "*b n 4"], squares: Float[Tensor, "*b n 4"]) -> Float[Tensor, "*b n 4"]:
    """Compute corner boxes from the distances of their sides to the middles of squares, in sides of the squares."""
    point, side = xyxy_to_cxcywh(squares)[..., :2], squares[..., 2:] - squares[..., :2]
    near, far = at_least_float32(distances).split(2, -1)
    return torch.cat((point - near * side, point + far * side), -1)


class FCOS(DenseHead):
    """Points inside of a box, near its center, that predict its class, its sides and how central they are.

    score = sqrt(class * centerness), with centerness = sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))

    The anchors of the output are squares as large as a cell, with the point in the middle; its offsets are the
    distances to the left, upper, right and lower side of the box, in strides.

    Args:
        in_spec: the levels that come in; the head's weights are the same for all.
        num_classes: of the data.
        channels: width of the towers; levels of another width are projected to it. Where None, the width of the
            levels if they share one, else 256.
        num_convs: convolutions in each of the two towers, one for classes, one for sides and centerness.
        norm: after each of them: ``group`` norm or ``none``.
        point_offset: position of the point in its cell, in cells: 0.5 in the middle (the paper), 0 in the upper left
            corner (torchvision).
        anchor_grid: pixels between points: the stride of the ``level``, or those of the ``padded_input`` divided by the
            level's cells, rounded down (torchvision).
        center_radius: distance from the center of its box, across and down, that a point keeps below, in strides;
            anywhere in the box where None or 0 (the paper's first version).
        atss_top_k: points are matched as in ATSS, where squares of eight strides around them are the anchors, and so
            many on each level are candidates of an object (9 in the paper); in FCOS's way where None.
        focal: constants of the class loss.
        detection: thresholds and limits of detections.

    Source: Tian et al., FCOS, ICCV 2019, sections 3.1 to 3.3, with the improvements of the TPAMI 2020 version. Checked
    against torchvision 0.29.2's FCOS with ``point_offset=0`` (outputs, matched points, losses, gradients, detections).
    As there, distances are ReLU(x) strides, where the paper's first version has exp(s x) with a trainable s per level.
    """

    decode_boxes = staticmethod(decode_distances)

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 4,
        norm: TowerNorm = "group",
        point_offset: float = 0.5,
        anchor_grid: AnchorGrid = "level",
        center_radius: float | None = 1.5,
        atss_top_k: int | None = None,
        focal: FocalOptions = _FOCAL,
        detection: DenseDetectionOptions = _DETECTION,
    ) -> None:
        check_fractions({"point_offset": point_offset})
        check_choice("anchor_grid", anchor_grid, get_args(AnchorGrid))
        if (center_radius or 0) < 0:
            raise ValueError(f"center_radius is at least 0, not {center_radius}")
        check_counts({"atss_top_k": 1 if atss_top_k is None else atss_top_k})
        low, high = point_offset - 0.5, point_offset + 0.5

        def make_square(stride: int) -> Float[Tensor, "1 4"]:
            return torch.tensor([[low, low, high, high]]) * stride

        super().__init__(
            in_spec,
            num_classes,
            channels=channels,
            make_anchors=make_square,
            detection=detection,
            anchor_grid=anchor_grid,
        )
        self.center_radius, self.atss_top_k, self.focal = center_radius or math.inf, atss_top_k, focal
        width = self.input_projection.channels
        # As in torchvision and the authors' code, convolutions have biases also before norms.
        levels = self.input_projection.levels
        self.class_tower = ConvTower(width, num_convs, norm=norm, bias=True, levels=levels)
        self.box_tower = ConvTower(width, num_convs, norm=norm, bias=True, levels=levels)
        # Every class starts at probability 0.01.
        self.classes = prediction_conv(width, num_classes, value=-math.log(99))
        self.distances = prediction_conv(width, 4)
        self.centerness = prediction_conv(width, 1)

    def predict(self, maps: Maps) -> DenseMaps:
        """Apply the towers to levels of one width."""
        class_maps, box_maps = self.class_tower.over_levels(maps), self.box_tower.over_levels(maps)
        return DenseMaps(
            conv_over_levels(self.classes, class_maps),
            [run_in_full_precision(self.distances, x).relu() for x in box_maps],
            [self.centerness(x) for x in box_maps],
        )

    def match(self, anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """Match the points of all levels with objects."""
        if self.atss_top_k is not None:
            squares = [_scale_squares(level, ATSS_SCALE) for level in anchors]
            return match_adaptively(squares, boxes, top_k=self.atss_top_k)
        levels = zip(anchors, self.strides, scale_ranges(self.strides), strict=True)
        return torch.cat(
            [
                match_points(
                    xyxy_to_cxcywh(level)[:, :2], boxes, scale_range=scale_range, radius=self.center_radius * stride
                )
                for level, stride, scale_range in levels
            ]
        )

    def loss(
        self, output: DenseOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all points; ``giou`` and ``centerness`` over the matched ones; divided by how many are.

        Args:
            output: of these images.
            targets: one per image.
            totals: of the whole optimizer step, with matches; of these targets where None.
        """
        image, point, boxes, labels = gather_matches(self.match_targets(output.anchors, targets), targets)
        totals = totals or LossTotals.of(targets)._replace(matches=len(point))
        assert output.centerness is not None
        # Overlaps and logarithms in half precision lose what the boxes are about.
        with torch.autocast(boxes.device.type, enabled=False):
            squares = torch.cat(output.anchors)[point]
            predicted = decode_distances(torch.cat(output.offsets, 1)[image, point], squares)
            centerness = at_least_float32(torch.cat(output.centerness, 1)[image, point, 0])
            target = compute_centerness(xyxy_to_cxcywh(squares)[:, :2], boxes.to(squares.dtype))
            central = F.binary_cross_entropy_with_logits(centerness, target, reduction="sum")
            sums = {
                "focal": summed_focal_loss_of_levels(
                    output.logits, labels, alpha=self.focal.alpha, gamma=self.focal.gamma
                ),
                "giou": (1 - generalized_iou(predicted, boxes)).sum(),
                "centerness": central,
            }
            return {name: value / totals.matches_per_process for name, value in sums.items()}

    def count_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> int:
        """Count the points that are matched with an object, at a network input of this (height, width)."""
        return self.count_matched(targets, input_size)


def _scale_squares(squares: Float[Tensor, "n 4"], scale: float) -> Float[Tensor, "n 4"]:
    """Multiply the sides of squares, which keep their middles."""
    middles, sides = xyxy_to_cxcywh(squares).split(2, -1)
    return cxcywh_to_xyxy(torch.cat((middles, sides * scale), -1))
