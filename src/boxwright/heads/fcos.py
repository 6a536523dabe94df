"""FCOS's head: every point predicts the distances to the four sides of its box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from boxwright.dense.decode import dense_detections, hard_nms
from boxwright.dense.point_matching import match_points, scale_ranges
from boxwright.dense.towers import ConvTower, TowerNorm
from boxwright.detections import Detections
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_counts, check_shares
from boxwright.layers.predictions import InputProjection, flatten_predictions, prediction_conv, run_in_full_precision
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.anchors import grid_anchors
from boxwright.ops.box_matching import matched_anchors
from boxwright.ops.boxes import at_least_float32, generalized_iou, inverse_sigmoid, xyxy_to_cxcywh
from boxwright.structures import Features, ImageSize, LossTotals, Spec, Targets

__all__ = ["FCOS"]


class FCOSOutput(NamedTuple):
    """What the head predicts at every point, level by level.

    ``distances`` are to the left, upper, right and lower side of the box, in strides. ``centerness`` is a logit.
    ``squares`` are corner boxes in pixels of the network's input: as large as a cell, with the point in the middle.
    """

    logits: tuple[Float[Tensor, "b _n k"], ...]
    distances: tuple[Float[Tensor, "b _n 4"], ...]
    centerness: tuple[Float[Tensor, "b _n 1"], ...]
    squares: tuple[Float[Tensor, "_n 4"], ...]

    def scores(self) -> list[Float[Tensor, "b _n k"]]:
        """Of each level, sqrt(class probability * centerness)."""
        levels = zip(self.logits, self.centerness, strict=True)
        return [(at_least_float32(k).sigmoid() * at_least_float32(c).sigmoid()).sqrt() for k, c in levels]

    def prediction(self) -> tuple[Float[Tensor, "b n k"], Float[Tensor, "b n 4"]]:
        """Logits of the scores, and corner boxes in pixels of the network's input."""
        boxes = decode_distances(torch.cat(self.distances, 1), torch.cat(self.squares))
        return inverse_sigmoid(torch.cat(self.scores(), 1), eps=1e-7), boxes


class FCOS(nn.Module):
    """Points inside of a box, near its center, predict its class, its sides and how central they are.

    score = sqrt(class * centerness), with centerness = sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b))

    Args:
        in_spec: the levels that come in; the head's weights are the same for all.
        num_classes: of the data.
        channels: width of the towers; levels of another width are brought to it. Where None, the width of the levels
            if they share one, else 256.
        num_convs: convolutions in each of the two towers, one for classes, one for sides and centerness.
        norm: after each of them: ``group`` norm or ``none``.
        point_offset: where in its cell a point lies, in cells: 0.5 in the middle (the paper), 0 in the upper left
            corner (torchvision).
        center_radius: how far from the center of its box, across and down, a point may lie, in strides; anywhere in
            the box where None or 0 (the paper's first version).
        alpha: weight of objects in the class loss, in [0, 1].
        gamma: exponent of the class loss that lowers the weight of easy predictions.
        score_threshold: detections have a higher score.
        nms_threshold: IoU above which the better of two detections of a class suppresses the other.
        pre_nms_top_k: most (point, class) pairs of a level that are looked at.
        max_detections: most detections of an image.

    Source: Tian et al., FCOS, ICCV 2019, sections 3.1 to 3.3, with the improvements of the TPAMI 2020 version. Checked
    against torchvision 0.29.2's FCOS with ``point_offset=0`` (outputs, matched points, losses, gradients, detections).
    As there, distances are ReLU(x) strides, where the paper's first version has exp(s x) with a trainable s per level.
    """

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 4,
        norm: TowerNorm = "group",
        point_offset: float = 0.5,
        center_radius: float | None = 1.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        score_threshold: float = 0.2,
        nms_threshold: float = 0.6,
        pre_nms_top_k: int = 1000,
        max_detections: int = 100,
    ) -> None:
        super().__init__()
        check_counts({"num_classes": num_classes, "pre_nms_top_k": pre_nms_top_k, "max_detections": max_detections})
        check_shares({"point_offset": point_offset, "alpha": alpha})
        check_shares({"score_threshold": score_threshold, "nms_threshold": nms_threshold})
        if (center_radius or 0) < 0 or gamma < 0:
            raise ValueError(f"center_radius and gamma are at least 0, not {center_radius} and {gamma}")
        self.point_offset, self.center_radius = point_offset, center_radius or math.inf
        self.alpha, self.gamma = alpha, gamma
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.pre_nms_top_k, self.max_detections = pre_nms_top_k, max_detections

        self.widths = InputProjection(in_spec, channels)
        self.strides = [in_spec[name].stride for name in self.widths.levels]
        width = self.widths.channels
        # As in torchvision and the authors' code, convolutions have biases also before norms.
        self.class_tower = ConvTower(width, num_convs, norm=norm, bias=True)
        self.box_tower = ConvTower(width, num_convs, norm=norm, bias=True)
        # Every class starts at probability 0.01.
        self.classes = prediction_conv(width, num_classes, value=-math.log(99))
        self.distances = prediction_conv(width, 4)
        self.centerness = prediction_conv(width, 1)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        targets: Sequence[Targets] | None = None,
    ) -> FCOSOutput:
        """Predict at every point; ``targets`` change nothing."""
        maps = self.widths(features)
        class_maps, box_maps = self.class_tower.over_levels(maps), self.box_tower.over_levels(maps)
        return FCOSOutput(
            tuple(flatten_predictions(conv_over_levels(self.classes, class_maps), self.classes.out_channels)),
            tuple(flatten_predictions([run_in_full_precision(self.distances, x).relu() for x in box_maps], 4)),
            tuple(flatten_predictions([self.centerness(x) for x in box_maps], 1)),
            self._squares([(x.shape[-2], x.shape[-1]) for x in maps], at_least_float32(maps[0])),
        )

    def loss(
        self, output: FCOSOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all points; ``giou`` and ``centerness`` over the matched ones; divided by how many are.

        Args:
            output: of these images.
            targets: one per image.
            totals: of the whole optimizer step, with matches; of these targets where None.
        """
        matched = torch.stack([self.match(output.squares, target.boxes) for target in targets])
        image, place, boxes, labels = matched_anchors(matched, targets)
        totals = totals or LossTotals.of(targets)._replace(matches=len(place))
        # Overlaps and logarithms in half precision lose what the boxes are about.
        with torch.autocast(boxes.device.type, enabled=False):
            squares = torch.cat(output.squares)[place]
            found = decode_distances(torch.cat(output.distances, 1)[image, place], squares)
            centerness = at_least_float32(torch.cat(output.centerness, 1)[image, place, 0])
            central = F.binary_cross_entropy_with_logits(centerness, _centerness(squares, boxes), reduction="sum")
            sums = {
                "focal": summed_focal_loss_of_levels(output.logits, labels, alpha=self.alpha, gamma=self.gamma),
                "giou": (1 - generalized_iou(found, boxes)).sum(),
                "centerness": central,
            }
            return {name: value / totals.matches_per_process for name, value in sums.items()}

    def count_matches(self, targets: Sequence[Targets], canvas: tuple[int, int]) -> int:
        """How many points belong to an object, over these images.

        Args:
            targets: one per image.
            canvas: (height, width) of the network's input.
        """
        shapes = [(-(-canvas[0] // stride), -(-canvas[1] // stride)) for stride in self.strides]
        return sum(int((self.match(self._squares(shapes, t.boxes), t.boxes) >= 0).sum()) for t in targets)

    def postprocess(self, output: FCOSOutput, image_sizes: Sequence[ImageSize]) -> list[Detections]:
        """The best (point, class) pairs that no better one of their class overlaps, in pixels of the original."""
        return dense_detections(
            output.scores(),
            output.distances,
            output.squares,
            image_sizes,
            decode=decode_distances,
            suppress=partial(hard_nms, threshold=self.nms_threshold),
            score_threshold=self.score_threshold,
            pre_nms_top_k=self.pre_nms_top_k,
            max_detections=self.max_detections,
        )

    def match(self, squares: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """The object of each point of all levels, or -1."""
        levels = zip(squares, self.strides, scale_ranges(self.strides), strict=True)
        return torch.cat(
            [
                match_points(
                    xyxy_to_cxcywh(level)[:, :2], boxes, scale_range=scale_range, radius=self.center_radius * stride
                )
                for level, stride, scale_range in levels
            ]
        )

    def _squares(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Float[Tensor, "_n 4"], ...]:
        """Squares around the points of maps of these (height, width), on the device and of the type of ``like``."""
        low, high = self.point_offset - 0.5, self.point_offset + 0.5
        base = like.new_tensor([[low, low, high, high]])
        levels = zip(shapes, self.strides, strict=True)
        return tuple(grid_anchors(base * stride, height, width, stride) for (height, width), stride in levels)


def decode_distances(distances: Float[Tensor, "*b n 4"], squares: Float[Tensor, "n 4"]) -> Float[Tensor, "*b n 4"]:
    """Corner boxes from the distances of their sides to the middles of squares, in sides of the squares."""
    point, side = xyxy_to_cxcywh(squares)[..., :2], squares[..., 2:] - squares[..., :2]
    near, far = at_least_float32(distances).split(2, -1)
    return torch.cat((point - near * side, point + far * side), -1)


def _centerness(squares: Float[Tensor, "n 4"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """1 in the middle of a box, 0 on its sides."""
    point = xyxy_to_cxcywh(squares)[:, :2]
    near, far = point - boxes[:, :2], boxes[:, 2:] - point
    return (torch.minimum(near, far) / torch.maximum(near, far)).prod(-1).sqrt()
