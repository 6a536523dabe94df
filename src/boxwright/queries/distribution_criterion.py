"""Losses of decoders whose boxes are distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree

from boxwright.losses.distribution import distillation_loss, fine_grained_localization_loss
from boxwright.ops.boxes import at_least_float32, iou
from boxwright.queries.criterion import SetCriterion, layer_suffixes, name_terms, pair_corners
from boxwright.queries.distributions import DistributionLayers, SideBins
from boxwright.queries.mask_branch import MaskFactors
from boxwright.queries.matching import Matches, NormalizedTargets
from boxwright.queries.options import QueryLossWeights
from boxwright.queries.union import Assignment
from boxwright.structures import LossTotals


@dataclass(frozen=True, kw_only=True)
class DistributionLossWeights(QueryLossWeights):
    """Weights of the loss terms of every decoder layer whose boxes are distributions.

    Args:
        fgl_weight: of the fine-grained localization loss.
        ddf_weight: of the distillation from the last layer's distributions.
    """

    fgl_weight: float = 0.15
    ddf_weight: float = 1.5


class Counts(NamedTuple):
    """Queries of the step, per process: those that are matched, and those that are not."""

    matched: float
    others: float


class DistributionCriterion:
    """Losses of decoder layers, of their initial boxes and of the encoder, by the union of all assignments.

    Class losses take each layer's own matches. L1, GIoU and ``fgl`` take the union and are divided by its size; ``ddf``
    draws the distributions of all queries toward the last layer's, those of the union by their IoU, the others by the
    last layer's best score. Without the union all of them take each layer's own matches, and the number of objects.

    Args:
        criterion: class loss, matcher, L1 and GIoU.
        weights: of the terms.
        bins: of the distributions.
        united: boxes learn from the union.

    Source: Peng et al., D-FINE, ICLR 2025, sections 4.1 and 4.2. Checked against ``DFINECriterion`` of Peterande/D-FINE
    4a1f73a and, with masks, ``ECCriterion`` of Intellindust-AI-Lab/EdgeCrafter 706d037, whose initial boxes go with the
    masks of the last layer. Differs in dividing ``ddf`` by the queries of the whole optimizer step, where theirs takes
    those of one process, in leaving what is not a number as it is, and in having denoising terms without objects.
    """

    def __init__(
        self, criterion: SetCriterion, weights: DistributionLossWeights, bins: SideBins, *, united: bool = True
    ) -> None:
        self.criterion, self.weights, self.bins, self.united = criterion, weights, bins, united

    def assign(
        self,
        layers: DistributionLayers,
        selected: tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]],
        targets: Sequence[NormalizedTargets],
        masks: MaskFactors | None = None,
    ) -> Assignment:
        """Match the predictions of all layers and of the encoder, and unite the matches."""
        return self.criterion.assign(*layers.list_boxes(selected), targets, _with_initial(masks))

    def __call__(
        self,
        layers: DistributionLayers,
        selected: tuple[Float[Tensor, "b q k"], Float[Tensor, "b q 4"]],
        assignment: Assignment,
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        masks: MaskFactors | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted terms of the matching queries.

        Args:
            layers: predictions of the decoder.
            selected: logits and boxes of the encoder's tokens.
            assignment: of these predictions.
            targets: one per image.
            totals: of the optimizer step; ``matches`` counts the union.
            masks: of the decoder's layers.
        """
        with torch.autocast(layers.logits.device.type, enabled=False):
            layers, selected = pytree.tree_map(at_least_float32, (layers, selected))
            names, num_layers = layer_suffixes(len(layers.logits)), len(layers.logits)
            united = assignment.united if self.united else None
            own = assignment.of_layers.select(slice(num_layers)) if united is None else united.repeat(num_layers)
            counts = self.count(layers, totals)
            divisor = totals.objects_per_process if united is None else totals.matches_per_process
            predictions = layers.list_boxes(selected)
            terms = self.criterion(*predictions, targets, totals, assignment.of_layers, united=united)
            of_masks = self.criterion.mask_losses(_with_initial(masks), assignment.of_layers, targets, totals)
            return {
                **name_terms(terms, [*names, "_initial", "_encoder"]),
                **name_terms(of_masks, [*names, "_initial"]),
                **self._side_losses(layers, targets, own, divisor, counts, counts, names),
            }

    def noised(
        self,
        layers: DistributionLayers,
        matches: Matches,
        groups: int,
        targets: Sequence[NormalizedTargets],
        totals: LossTotals,
        weights: Counts,
        masks: MaskFactors | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute the weighted terms of denoising queries.

        Args:
            layers: predictions from these queries.
            matches: of these queries, of one layer.
            groups: number of matches of each object.
            targets: one per image.
            totals: of the optimizer step.
            weights: counts of the matching queries, which weigh the two parts of ``ddf``.
            masks: of these queries, of the decoder's layers.
        """
        with torch.autocast(layers.logits.device.type, enabled=False):
            layers = pytree.tree_map(at_least_float32, layers)
            logits, boxes = layers.list_boxes()
            count = totals.objects_per_process * groups
            every = matches.repeat(len(boxes))
            terms = self.criterion(logits, boxes, targets, totals, every, groups)
            terms |= self.criterion.mask_losses(_with_initial(masks), every, targets, totals, groups)
            names = [f"_denoising_{i}" for i in range(len(layers.logits))]
            counts, every = _count(layers, totals, totals.objects * groups), matches.repeat(len(layers.logits))
            return {
                **name_terms(terms, [*names, "_denoising_initial"]),
                **self._side_losses(layers, targets, every, count, counts, weights, names),
            }

    def count(self, layers: DistributionLayers, totals: LossTotals) -> Counts:
        """Count the matching queries of a step whose images have as many as these predictions."""
        return _count(layers, totals, (totals.matches or 0) if self.united else totals.objects)

    def _side_losses(
        self,
        layers: DistributionLayers,
        targets: Sequence[NormalizedTargets],
        every: Matches,
        divisor: float,
        counts: Counts,
        weights: Counts,
        names: Sequence[str],
    ) -> dict[str, Float[Tensor, ""]]:
        """Compute ``fgl`` of each layer, divided by ``divisor``, and ``ddf`` of each but the last.

        The parts of ``ddf`` are means over matched queries and over the others (``counts``), weighed by the square
        roots of ``weights``. Without weight, neither is computed.
        """
        if not self.weights.fgl_weight and not self.weights.ddf_weight:
            return {}
        num_layers = len(layers.side_logits)
        objects = torch.cat([t.boxes_cxcywh_norm for t in targets])[every.object]
        reference = layers.initial_boxes_cxcywh_norm.detach()[every.image, every.query]
        left, right_weight = self.bins.locate(reference, objects.to(reference.dtype))
        overlap = iou(*pair_corners(layers.boxes_cxcywh_norm.detach(), targets, every))
        fgl = fine_grained_localization_loss(layers.side_logits[every[:3]], left, right_weight).sum(-1) * overlap
        fgl = fgl.new_zeros(num_layers).index_add(0, every.layer, fgl) / divisor

        weight = layers.logits.detach()[-1].sigmoid().amax(-1).repeat(num_layers, 1, 1)
        weight[every[:3]] = overlap
        is_matched = torch.zeros_like(weight, dtype=torch.bool)
        is_matched[every[:3]] = True
        divergence = distillation_loss(layers.side_logits[:-1], layers.side_logits[-1:]).mean(-1) * weight[:-1]
        matched, others = weights.matched**0.5, weights.others**0.5
        # Where there are none, there is nothing to divide.
        factors = matched / (counts.matched or 1.0), others / (counts.others or 1.0)
        factor = torch.where(is_matched[:-1], *factors)
        ddf = (divergence * factor).flatten(1).sum(1) / (matched + others)
        return {
            **name_terms({"fgl": self.weights.fgl_weight * fgl}, names),
            **name_terms({"ddf": self.weights.ddf_weight * ddf}, names[:-1]),
        }


def _count(layers: DistributionLayers, totals: LossTotals, matched: int) -> Counts:
    """Count the queries of the step, per process, of which so many of all processes are matched."""
    of_one = matched / totals.processes
    return Counts(of_one, totals.images_per_process * layers.logits.shape[2] - of_one)


def _with_initial(masks: MaskFactors | None) -> MaskFactors | None:
    """Add the masks that go with the initial boxes: those of the last layer."""
    return None if masks is None else masks.repeat_last()
