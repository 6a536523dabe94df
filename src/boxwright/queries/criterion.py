"""Losses of query decoders, all layers at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, generalized_iou, iou, xyxy_to_cxcywh
from boxwright.queries.class_losses import ClassLoss, MatchedQueries
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.mask_losses import compute_mask_losses
from boxwright.queries.mask_points import make_mask_targets
from boxwright.queries.matching import HungarianMatcher, Matches, NormalizedTargets
from boxwright.queries.options import QueryLossWeights
from boxwright.queries.union import Assignment, unite_matches
from boxwright.structures import LossTotals, Targets

DEFAULT_WEIGHTS = QueryLossWeights()


class SetCriterion:
    """Class loss of all queries; L1 and GIoU loss of the matched ones, summed and divided by the objects.

    Args:
        class_loss: of the class scores; its name is the term's.
        matcher: assigns queries to objects; the loss computes GIoU as it does.
        weights: of the terms.

    Source: Carion et al., DETR, equation 2; Zhao et al., RT-DETR, equation 4. Checked against transformers,
    facebookresearch/detr 29901c5, fundamentalvision/Deformable-DETR 11169a6 and ``SetCriterion`` of lyuwenyu/RT-DETR
    068dfde. Differs in evaluating all layers in one pass.
    """

    def __init__(
        self, class_loss: ClassLoss, matcher: HungarianMatcher, weights: QueryLossWeights = DEFAULT_WEIGHTS
    ) -> None:
        self.class_loss, self.matcher, self.weights = class_loss, matcher, weights
        # Of the class loss, beside its weight: training may raise it for a while.
        self.class_factor = 1.0

    def __call__(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        matches: Matches | None = None,
        groups: int = 1,
        united: Matches | None = None,
        masks: MaskFactors | None = None,
    ) -> dict[str, Float[Tensor, " l"]]:
        """Compute the weighted losses of each layer: the class loss by its name, ``l1`` and ``giou``.

        Args:
            logits: of every layer.
            boxes_cxcywh_norm: of every layer.
            targets: one per image.
            totals: of the optimizer step.
            matches: pairs of query and object; those of the matcher where None.
            groups: number of matches of each object.
            united: those that the boxes of every layer learn from, as many as ``totals`` says; ``matches`` where None.
            masks: of every layer, which ``mask`` and ``dice`` are of.
        """
        # Overlaps and logarithms in half precision lose what the boxes are about.
        with torch.autocast(logits.device.type, enabled=False):
            logits, boxes = at_least_float32(logits), at_least_float32(boxes_cxcywh_norm)
            if matches is None:
                matches = self.matcher(logits, boxes, targets, masks)
            classes = self._class_losses(logits, boxes, targets, totals, matches, groups)
            of_masks = self.mask_losses(masks, matches, targets, totals, groups)
            count = totals.objects_per_process * groups
            if united is not None:
                matches, count = united.repeat(len(logits)), totals.matches_per_process
            return {**classes, **self._box_losses(boxes, targets, matches, count), **of_masks}

    @torch.no_grad()
    def assign(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        masks: MaskFactors | None = None,
    ) -> Assignment:
        """Match the predictions of every layer, of which the first ones may have masks, and unite the matches."""
        matches = self.matcher(at_least_float32(logits), at_least_float32(boxes_cxcywh_norm), targets, masks)
        return Assignment(matches, unite_matches(matches))

    def mask_losses(
        self,
        masks: MaskFactors | None,
        matches: Matches,
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        groups: int = 1,
    ) -> dict[str, Float[Tensor, " l"]]:
        """Compute the weighted ``mask`` and ``dice`` of each layer with masks; nothing where there are none.

        Args:
            masks: of the first layers, which may be fewer than those of ``matches``.
            matches: pairs of query and object.
            targets: one per image.
            totals: of the optimizer step.
            groups: number of matches of each object.
        """
        own = [target.masks for target in targets if target.masks is not None]
        if masks is None or len(own) < len(targets):
            return {}
        with torch.autocast(masks.queries.device.type, enabled=False):
            entropy, dice = compute_mask_losses(masks, matches, own, totals.objects_per_process * groups)
        return {"mask": self.weights.mask_weight * entropy, "dice": self.weights.dice_weight * dice}

    def _class_losses(
        self,
        logits: Float[Tensor, "l b q k"],
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        matches: Matches,
        groups: int = 1,
    ) -> dict[str, Float[Tensor, " l"]]:
        """Compute the weighted class loss of each layer, by its name; see the call. Without autocast."""
        labels = torch.cat([t.labels for t in targets])[matches.object]
        corners, objects = pair_corners(boxes_cxcywh_norm.detach(), targets, matches)
        matched = MatchedQueries(*matches[:3], labels, iou(corners, objects))
        weight = self.class_factor * self.weights.class_weight
        return {self.class_loss.name: weight * self.class_loss(logits, matched, totals, groups)}

    def _box_losses(
        self,
        boxes_cxcywh_norm: Float[Tensor, "l b q 4"],
        targets: Sequence[NormalizedTargets],
        matches: Matches,
        count: float,
    ) -> dict[str, Float[Tensor, " l"]]:
        """Compute the weighted ``l1`` and ``giou`` of each layer, sums over the matches divided by ``count``."""
        objects = torch.cat([t.boxes_cxcywh_norm for t in targets])[matches.object]
        predicted = boxes_cxcywh_norm[matches[:3]]
        l1 = (predicted - objects).abs().sum(-1)
        corners = pair_corners(boxes_cxcywh_norm, targets, matches)
        giou = 1 - generalized_iou(*corners, eps=self.matcher.giou_eps)
        per_layer = l1.new_zeros(len(boxes_cxcywh_norm))
        return {
            "l1": self.weights.l1_weight * per_layer.index_add(0, matches.layer, l1) / count,
            "giou": self.weights.giou_weight * per_layer.index_add(0, matches.layer, giou) / count,
        }


def pair_corners(
    boxes_cxcywh_norm: Float[Tensor, "l b q 4"], targets: Sequence[NormalizedTargets], matches: Matches
) -> tuple[Float[Tensor, "s 4"], Float[Tensor, "s 4"]]:
    """Look up the corner boxes of matched predictions, and those of their objects."""
    objects = torch.cat([t.boxes_cxcywh_norm for t in targets])[matches.object]
    return cxcywh_to_xyxy(boxes_cxcywh_norm[matches[:3]]), cxcywh_to_xyxy(objects)


def name_terms(losses: dict[str, Float[Tensor, " l"]], suffixes: Sequence[str]) -> dict[str, Float[Tensor, ""]]:
    """Name one term per loss and layer: loss + suffix."""
    return {
        f"{term}{suffix}": value
        for term, values in losses.items()
        for suffix, value in zip(suffixes, values, strict=True)
    }


def layer_suffixes(num_layers: int) -> list[str]:
    """List the suffixes of the terms of decoder layers: _0, _1, ..., and none for the last."""
    return [*(f"_{i}" for i in range(num_layers - 1)), ""]


def normalize_targets(targets: Sequence[Targets], *, with_masks: bool = False) -> list[NormalizedTargets]:
    """Convert corner boxes in pixels to center boxes relative to the image inside its padding, perhaps with masks."""
    normalized = []
    for target in targets:
        height, width = target.size
        scale = target.boxes.new_tensor([width, height, width, height])
        masks = make_mask_targets(target) if with_masks else None
        normalized.append(NormalizedTargets(target.labels, xyxy_to_cxcywh(target.boxes) / scale, masks))
    return normalized
