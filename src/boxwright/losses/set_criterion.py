"""The losses of query decoders, all layers at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.losses.matching import HungarianMatcher, Matches, NormalizedTargets
from boxwright.losses.varifocal import varifocal_loss
from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, generalized_iou, iou, xyxy_to_cxcywh
from boxwright.structures import Targets


class LayerLosses(NamedTuple):
    """One weighted value per layer of predictions."""

    varifocal: Float[Tensor, " l"]
    l1: Float[Tensor, " l"]
    giou: Float[Tensor, " l"]


class SetCriterion:
    """Varifocal loss on all queries, L1 and GIoU loss on the matched ones, each summed and divided by one number.

    Args:
        class_weight: of the varifocal loss.
        l1_weight: of the L1 distance of normalised centre boxes.
        giou_weight: of 1 - GIoU.
        alpha: of the varifocal loss.
        gamma: of the varifocal loss.
        matcher: assigns queries to objects.

    Source: Carion et al., DETR, equation 2; Zhao et al., RT-DETR, equation 4. Checked against transformers' RTDetrLoss
    and ``SetCriterion`` of lyuwenyu/RT-DETR 068dfde. Differs in evaluating all layers in one pass.
    """

    def __init__(
        self,
        *,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.75,
        gamma: float = 2.0,
        matcher: HungarianMatcher,
    ) -> None:
        self.class_weight, self.l1_weight, self.giou_weight = class_weight, l1_weight, giou_weight
        self.alpha, self.gamma = alpha, gamma
        self.matcher = matcher

    def __call__(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        normalizer: float,
        matches: Matches | None = None,
    ) -> LayerLosses:
        """Weighted losses of each layer.

        Args:
            logits: of every layer.
            boxes_cxcywh_norm: of every layer.
            targets: one per picture.
            normalizer: what the sums are divided by, usually the number of objects.
            matches: pairs of query and object; found by the matcher where None.
        """
        # Overlaps and logarithms in half precision lose what the boxes are about.
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes = at_least_float32(logits), at_least_float32(boxes_cxcywh_norm)
            if matches is None:
                matches = self.matcher(logits, boxes, targets)
            labels = torch.cat([t.labels for t in targets])[matches.object]
            wanted = torch.cat([t.boxes_cxcywh_norm for t in targets])[matches.object]
            where = (matches.layer, matches.image, matches.query)
            found = boxes[where]
            overlap = iou(cxcywh_to_xyxy(found.detach()), cxcywh_to_xyxy(wanted))

            quality = torch.zeros_like(logits)
            quality[(*where, labels)] = overlap.to(quality.dtype)
            positive = torch.zeros_like(logits, dtype=torch.bool)
            positive[(*where, labels)] = True
            varifocal = varifocal_loss(logits, quality, positive, alpha=self.alpha, gamma=self.gamma)

            l1 = (found - wanted).abs().sum(-1)
            giou = 1 - generalized_iou(cxcywh_to_xyxy(found), cxcywh_to_xyxy(wanted))
            per_layer = l1.new_zeros(len(logits))
            return LayerLosses(
                self.class_weight * varifocal.sum((1, 2, 3)) / normalizer,
                self.l1_weight * per_layer.index_add(0, matches.layer, l1) / normalizer,
                self.giou_weight * per_layer.index_add(0, matches.layer, giou) / normalizer,
            )


def normalized_targets(targets: Sequence[Targets]) -> list[NormalizedTargets]:
    """Corner boxes in pixels to centre boxes relative to the picture's content."""
    out = []
    for target in targets:
        height, width = target.size
        scale = target.boxes.new_tensor([width, height, width, height])
        out.append(NormalizedTargets(target.labels, xyxy_to_cxcywh(target.boxes) / scale))
    return out
