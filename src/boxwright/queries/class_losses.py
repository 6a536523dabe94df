"""Losses of the class scores of a query decoder, and their costs in matching.

Each class here is one choice for ``SetCriterion`` or ``HungarianMatcher``; the paper of a head says which of them
belong together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.layers.option_checks import check_choice
from boxwright.losses.focal import sigmoid_focal_loss
from boxwright.losses.iou_aware import iou_aware_loss
from boxwright.losses.matchability import matchability_loss
from boxwright.losses.varifocal import varifocal_loss
from boxwright.structures import LossTotals


class MatchedQueries(NamedTuple):
    """Queries that are matched with an object.

    Entry ``i`` is query ``query[i]`` of image ``image[i]`` in layer ``layer[i]``, with the object's label, and the
    IoU of the two boxes as ``overlap``.
    """

    layer: Int[Tensor, " s"]
    image: Int[Tensor, " s"]
    query: Int[Tensor, " s"]
    label: Int[Tensor, " s"]
    overlap: Float[Tensor, " s"]


@runtime_checkable
class ClassLoss(Protocol):
    """Loss of the class logits of all queries, one value per layer, with its name."""

    name: str

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]: ...


@runtime_checkable
class ClassCost(Protocol):
    """Cost of matching an object with a query, as far as the object's class goes."""

    def __call__(self, logits: Float[Tensor, "l q k"], labels: Int[Tensor, " n"]) -> Float[Tensor, "l q n"]: ...


class VarifocalLoss:
    """Varifocal loss: ``varifocal_loss`` summed over queries and classes, divided by the objects times ``groups``.

    Args:
        alpha: weight of negatives.
        gamma: exponent that lowers the weight of easy negatives.

    Source: Zhao et al., RT-DETR, equation 4.
    """

    name = "varifocal"

    def __init__(self, alpha: float = 0.75, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]:
        loss = varifocal_loss(logits, *_quality_targets(logits, matched), alpha=self.alpha, gamma=self.gamma)
        return loss.sum((1, 2, 3)) / (totals.objects_per_process * groups)


class MatchabilityLoss:
    """Matchability-aware loss: ``matchability_loss`` summed over queries and classes, divided as the varifocal loss.

    Args:
        gamma: exponent of the quality, and of the weight of negatives.

    Source: Huang et al., DEIM, CVPR 2025, equation 4.
    """

    name = "matchability"

    def __init__(self, gamma: float = 1.5) -> None:
        self.gamma = gamma

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]:
        loss = matchability_loss(logits, *_quality_targets(logits, matched), gamma=self.gamma)
        return loss.sum((1, 2, 3)) / (totals.objects_per_process * groups)


class IoUAwareLoss:
    """IoU-aware binary cross entropy: ``iou_aware_loss`` summed and divided as the varifocal loss.

    Args:
        alpha: exponent of the score in the target, in [0, 1].
        gamma: exponent that lowers the weight of easy negatives.

    Source: Chen et al., LW-DETR, 2024.
    """

    name = "iou_aware"

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]:
        loss = iou_aware_loss(logits, *_quality_targets(logits, matched), alpha=self.alpha, gamma=self.gamma)
        return loss.sum((1, 2, 3)) / (totals.objects_per_process * groups)


class FocalLoss:
    """Focal loss: ``sigmoid_focal_loss`` summed over queries and classes, divided by the objects times ``groups``.

    Args:
        alpha: weight of positives, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.

    Source: Zhu et al., Deformable DETR, ICLR 2021, appendix A.4; its code's mean over queries times their number is
    this sum.
    """

    name = "focal"

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]:
        target = torch.zeros_like(logits)
        target[matched[:4]] = 1
        loss = sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma)
        return loss.sum((1, 2, 3)) / (totals.objects_per_process * groups)


class CrossEntropyLoss:
    """Softmax cross entropy of all queries, those without object counting less; a weighted mean.

    The last logit stands for "no object". The mean is over the queries of the whole optimizer step, so that it does
    not depend on how images are spread over processes and accumulated batches.

    Args:
        no_object_weight: of queries without object, in [0, 1].

    Source: Carion et al., DETR, ECCV 2020, section 3.1. Checked against facebookresearch/detr 29901c5, whose mean is
    over one process's images.
    """

    name = "cross_entropy"

    def __init__(self, no_object_weight: float = 0.1) -> None:
        self.no_object_weight = no_object_weight

    def __call__(
        self, logits: Float[Tensor, "l b q k"], matched: MatchedQueries, totals: LossTotals, groups: int = 1
    ) -> Float[Tensor, " l"]:
        num_layers, _, num_queries, num_logits = logits.shape
        labels = torch.full(logits.shape[:-1], num_logits - 1, device=logits.device)
        labels[matched[:3]] = matched.label
        weights = torch.ones_like(logits[..., 0]).masked_fill(labels == num_logits - 1, self.no_object_weight)
        loss = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
        with_object = min(totals.objects * groups, totals.images * num_queries)
        without = totals.images * num_queries - with_object
        total_weight = (with_object + self.no_object_weight * without) / totals.processes
        return (weights * loss).view(num_layers, -1).sum(1) / total_weight


ClassLossName = Literal["focal", "varifocal", "mal", "iabce"]

_LOSSES: Mapping[ClassLossName, Callable[[], ClassLoss]] = {
    "focal": FocalLoss,
    "varifocal": VarifocalLoss,
    "mal": MatchabilityLoss,
    "iabce": IoUAwareLoss,
}


def make_class_loss(name: ClassLossName) -> ClassLoss:
    """Make the loss of queries that score every class on its own.

    Args:
        name: ``focal`` has the classes alone as its target, ``varifocal`` how well boxes fit, and ``mal`` too, but with
            matches of poor boxes in full: DEIM's matchability-aware loss. ``iabce`` is that of LW-DETR and RF-DETR,
            whose target goes a part of the way from the score to how well the box fits.

    Raises:
        ValueError: there is no loss of this name.
    """
    check_choice("class_loss", name, get_args(ClassLossName))
    return _LOSSES[name]()


def _quality_targets(
    logits: Float[Tensor, "l b q k"], matched: MatchedQueries
) -> tuple[Float[Tensor, "l b q k"], Bool[Tensor, "l b q k"]]:
    """Make the overlaps of matched queries at their classes, and True there; 0 and False elsewhere."""
    quality, positive = torch.zeros_like(logits), torch.zeros_like(logits, dtype=torch.bool)
    quality[matched[:4]] = matched.overlap.to(quality.dtype)
    positive[matched[:4]] = True
    return quality, positive


class FocalCost:
    """Focal cost: alpha (1 - p)^gamma (-log p) - (1 - alpha) p^gamma (-log(1 - p)).

    p is the sigmoid of the object's class.

    Args:
        alpha: of the focal loss, in [0, 1].
        gamma: of the focal loss.

    Source: Zhu et al., Deformable DETR, ICLR 2021.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        self.alpha, self.gamma = alpha, gamma

    def __call__(self, logits: Float[Tensor, "l q k"], labels: Int[Tensor, " n"]) -> Float[Tensor, "l q n"]:
        p = logits[..., labels].sigmoid()
        positive = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
        negative = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
        return positive - negative


class SoftmaxCost:
    """Minus the probability of the object's class, after a softmax over the classes and "no object".

    Source: Carion et al., DETR, ECCV 2020, equation 1.
    """

    def __call__(self, logits: Float[Tensor, "l q k"], labels: Int[Tensor, " n"]) -> Float[Tensor, "l q n"]:
        return -logits.softmax(-1)[..., labels]
