"""The losses of query decoders, all layers at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, generalized_iou, iou, xyxy_to_cxcywh
from boxwright.queries.class_losses import ClassLoss, MatchedQueries
from boxwright.queries.matching import HungarianMatcher, Matches, NormalizedTargets
from boxwright.structures import LossTotals, Targets


class SetCriterion:
    """A class loss on all queries; L1 and GIoU loss on the matched ones, summed and divided by the objects.

    Args:
        class_loss: of the class scores; its name is the term's.
        matcher: assigns queries to objects.
        class_weight: of the class loss.
        l1_weight: of the L1 distance of normalized center boxes.
        giou_weight: of 1 - GIoU.

    Source: Carion et al., DETR, equation 2; Zhao et al., RT-DETR, equation 4. Checked against transformers,
    facebookresearch/detr 29901c5, fundamentalvision/Deformable-DETR 11169a6 and ``SetCriterion`` of lyuwenyu/RT-DETR
    068dfde. Differs in evaluating all layers in one pass.
    """

    def __init__(
        self,
        *,
        class_loss: ClassLoss,
        matcher: HungarianMatcher,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
    ) -> None:
        self.class_loss, self.matcher = class_loss, matcher
        self.class_weight, self.l1_weight, self.giou_weight = class_weight, l1_weight, giou_weight

    def __call__(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        matches: Matches | None = None,
        groups: int = 1,
    ) -> dict[str, Float[Tensor, " l"]]:
        """Weighted losses of each layer: the class loss by its name, ``l1`` and ``giou``.

        Args:
            logits: of every layer.
            boxes_cxcywh_norm: of every layer.
            targets: one per image.
            totals: of the optimizer step.
            matches: pairs of query and object; found by the matcher where None.
            groups: how often each object is matched.
        """
        # Overlaps and logarithms in half precision lose what the boxes are about.
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes = at_least_float32(logits), at_least_float32(boxes_cxcywh_norm)
            if matches is None:
                matches = self.matcher(logits, boxes, targets)
            labels = torch.cat([t.labels for t in targets])[matches.object]
            wanted = torch.cat([t.boxes_cxcywh_norm for t in targets])[matches.object]
            found = boxes[matches[:3]]
            found_corners, wanted_corners = cxcywh_to_xyxy(found), cxcywh_to_xyxy(wanted)
            matched = MatchedQueries(*matches[:3], labels, iou(found_corners.detach(), wanted_corners))

            l1 = (found - wanted).abs().sum(-1)
            giou = 1 - generalized_iou(found_corners, wanted_corners)
            per_layer, objects = l1.new_zeros(len(logits)), totals.objects_per_process * groups
            return {
                self.class_loss.name: self.class_weight * self.class_loss(logits, matched, totals, groups),
                "l1": self.l1_weight * per_layer.index_add(0, matches.layer, l1) / objects,
                "giou": self.giou_weight * per_layer.index_add(0, matches.layer, giou) / objects,
            }


def named_terms(losses: dict[str, Float[Tensor, " l"]], suffixes: Sequence[str]) -> dict[str, Float[Tensor, ""]]:
    """One term per loss and layer, named loss + suffix."""
    return {
        f"{term}{suffix}": value
        for term, values in losses.items()
        for suffix, value in zip(suffixes, values, strict=True)
    }


def normalized_targets(targets: Sequence[Targets]) -> list[NormalizedTargets]:
    """Corner boxes in pixels to center boxes relative to the image's content."""
    out = []
    for target in targets:
        height, width = target.size
        scale = target.boxes.new_tensor([width, height, width, height])
        out.append(NormalizedTargets(target.labels, xyxy_to_cxcywh(target.boxes) / scale))
    return out
