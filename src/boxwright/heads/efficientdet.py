"""EfficientDet's head: separable convolutions that all levels share, with norms of each level's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.dense.head import DenseHead, DenseMaps, Maps
from boxwright.dense.options import DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.dense.separable_tower import SeparableTower
from boxwright.layers.option_checks import check_fractions
from boxwright.layers.predictions import run_in_full_precision
from boxwright.layers.separable_conv import SeparableConv
from boxwright.losses.focal import summed_focal_loss_of_levels
from boxwright.ops.box_deltas import encode_deltas
from boxwright.ops.box_matching import gather_matches, match_by_iou
from boxwright.ops.boxes import at_least_float32
from boxwright.structures import AnchorFits, ClassRows, LossTotals, Spec, Targets

__all__ = ["EfficientDet"]


@dataclass(frozen=True, kw_only=True)
class EfficientDetAnchorOptions:
    """Anchors around the middle of every cell.

    Args:
        scale: side of a level's smallest anchors, in strides; 5 in D7.
        octave_steps: sizes of anchors before the side has doubled.
        aspect_ratios: (width, height) of the anchors of one size, in sides. Those of effdet's weights; google/automl
            has the roots of 2 and 1/2 by now, 1.4142 and 0.7071, which moves corners by up to 5.8 pixels.
    """

    scale: float = 4.0
    octave_steps: int = 3
    aspect_ratios: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))


_ANCHORS, _FOCAL = EfficientDetAnchorOptions(), FocalOptions(gamma=1.5)
EFFICIENTDET_DETECTION = DenseDetectionOptions(score_threshold=0.0, pre_nms_top_k=5000, max_detections=100)


class EfficientDet(DenseHead):
    """Two towers of separable convolutions that predict classes and boxes of the anchors around each cell's middle.

    Args:
        in_spec: the levels that come in, fine to coarse.
        num_classes: C.
        channels: width of the towers; where None, that of the levels if they share one, else 256. Levels of another
            width are projected to it.
        num_convs: of each tower: 3 in D0 to D2, 4 in D3 to D5, 5 from D6 on.
        norm_momentum: of the running statistics of batch norms, the weight of the newest batch, in (0, 1].
        anchors: sizes and shapes of the anchors of a cell.
        matching_iou: least IoU of an anchor with the object that it is trained on; below, it is background, unless it
            is the one that overlaps an object most.
        focal: constants of the class loss.
        huber_delta: difference of deltas up to which the box loss is quadratic.
        box_weight: of the box loss.
        detection: thresholds and limits of detections; ``pre_nms_top_k`` is of all levels together.

    Source: Tan et al., EfficientDet, CVPR 2020, section 4. Checked against effdet 0.4.1, whose weights are
    google/automl's: same weights, same outputs, matches, losses (its default focal loss), gradients and detections.
    Differs in the order of a box's numbers, x before y; in counting a delta whose target is exactly 0 in the loss,
    which both leave out; in limiting how far a side can grow; and in anchors that follow the strides of the levels
    where the sides of an image are no multiples of them.
    """

    limit_per_level = False

    def __init__(
        self,
        in_spec: Spec,
        num_classes: int,
        *,
        channels: int | None = None,
        num_convs: int = 3,
        norm_momentum: float = 0.01,
        anchors: EfficientDetAnchorOptions = _ANCHORS,
        matching_iou: float = 0.5,
        focal: FocalOptions = _FOCAL,
        huber_delta: float = 0.1,
        box_weight: float = 50.0,
        detection: DenseDetectionOptions = EFFICIENTDET_DETECTION,
    ) -> None:
        check_fractions({"matching_iou": matching_iou})
        check_fractions({"norm_momentum": norm_momentum}, zero=False)
        if box_weight < 0 or huber_delta <= 0:
            raise ValueError(f"box_weight is at least 0 and huber_delta above 0, not {box_weight} and {huber_delta}")
        make_anchors = partial(_centered_anchors, options=anchors)
        super().__init__(in_spec, num_classes, channels=channels, make_anchors=make_anchors, detection=detection)
        self.matching_iou, self.focal = matching_iou, focal
        self.huber_delta, self.box_weight = huber_delta, box_weight
        num_anchors, width = self.base_anchors.shape[1], self.input_projection.channels
        self.class_tower = SeparableTower(width, num_convs, self.input_projection.levels)
        self.box_tower = SeparableTower(width, num_convs, self.input_projection.levels)
        # Every class starts at probability 0.01: else the many background anchors would drown the start.
        self.classes = SeparableConv(width, num_anchors * num_classes, value=-math.log(99))
        self.boxes = SeparableConv(width, num_anchors * 4)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum

    def predict(self, maps: Maps) -> DenseMaps:
        """Apply the towers to levels of one width."""
        logits = [self.classes(x) for x in self.class_tower(maps)]
        return DenseMaps(logits, [run_in_full_precision(self.boxes, x) for x in self.box_tower(maps)])

    def match(self, anchors: Sequence[Float[Tensor, "_n 4"]], boxes: Float[Tensor, "n 4"]) -> Int[Tensor, " a"]:
        """Match the anchors of all levels with objects by their IoU."""
        iou = self.matching_iou
        return match_by_iou(torch.cat(tuple(anchors)), boxes, positive=iou, negative=iou, low_quality="best")

    def anchor_fits(self, boxes: Float[Tensor, "n 4"], input_size: tuple[int, int]) -> AnchorFits:
        """Compare boxes in pixels of a padded network input of this (height, width) with all anchors."""
        return self.fits_by_iou(boxes, input_size, positive=self.matching_iou, negative=self.matching_iou)

    def class_rows(self) -> dict[str, ClassRows]:
        """Name the layer that predicts classes, anchor after anchor."""
        return {"classes.pointwise": ClassRows(blocks=self.base_anchors.shape[1])}

    def loss(
        self, output: DenseOutput, targets: Sequence[Targets], totals: LossTotals | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """``focal`` over all anchors, and ``huber`` over the four deltas of the matched ones.

        Both are divided by the number of matched anchors and one more, ``huber`` also by four.

        Args:
            output: of ``forward``.
            targets: one per image.
            totals: of the whole optimizer step, with matches; of these targets where None.

        Raises:
            ValueError: the matches of the step were not counted.
        """
        anchors = torch.cat(output.anchors)
        image, anchor, boxes, labels = gather_matches(self.match_targets(output.anchors, targets), targets)
        totals = totals or LossTotals.of(targets)._replace(matches=len(anchor))
        divisor = totals.matches_and_one_per_process
        expected = encode_deltas(boxes.to(anchors.dtype), anchors[anchor])
        # Logarithms and small deltas in half precision lose what the boxes are about.
        with torch.autocast(anchors.device.type, enabled=False):
            predicted = at_least_float32(torch.cat(output.offsets, 1)[image, anchor])
            huber = F.huber_loss(predicted, expected, reduction="sum", delta=self.huber_delta)
            focal = summed_focal_loss_of_levels(output.logits, labels, alpha=self.focal.alpha, gamma=self.focal.gamma)
            return {"focal": focal / divisor, "huber": self.box_weight * huber / (4 * divisor)}

    def count_matches(self, targets: Sequence[Targets], input_size: tuple[int, int]) -> int:
        """Count the anchors that are matched with an object, at a network input of this (height, width)."""
        return self.count_matched(targets, input_size)


def _centered_anchors(stride: int, options: EfficientDetAnchorOptions) -> Float[Tensor, "a 4"]:
    """Make corner boxes around the middle of the first cell: all shapes of the first size, then of the next."""
    scale, steps, shapes = options.scale, options.octave_steps, options.aspect_ratios
    if scale <= 0 or steps < 1 or not shapes or min(min(shape) for shape in shapes) <= 0:
        raise ValueError(
            "anchors need a scale above 0, octave_steps of 1 or more and aspect_ratios above 0, "
            f"not {scale}, {steps} and {list(shapes)}"
        )
    sides = [scale * stride * 2 ** (i / steps) for i in range(steps)]
    half = torch.tensor([(side * width / 2, side * height / 2) for side in sides for width, height in shapes])
    return torch.cat((stride / 2 - half, stride / 2 + half), 1)
