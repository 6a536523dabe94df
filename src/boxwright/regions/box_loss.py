"""The losses of what is said about regions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, Weights, encode_deltas
from boxwright.ops.box_matching import BACKGROUND
from boxwright.ops.boxes import at_least_float32
from boxwright.regions.assignment import SampledRegions
from boxwright.regions.box_branch import BoxPrediction
from boxwright.structures import LossTotals

SMOOTH_L1_BETA = 1 / 9
"""Detectron's and torchvision's for anchors, and torchvision's for regions."""

FAST_RCNN_BETA = 1.0
"""That of the paper's equation 3, which Detectron has for regions."""


def region_losses(
    logits: Float[Tensor, "r k"],
    deltas: Float[Tensor, "r c 4"],
    regions: SampledRegions,
    totals: LossTotals,
    *,
    weights: Weights = FAST_RCNN_WEIGHTS,
    beta: float = SMOOTH_L1_BETA,
) -> dict[str, Float[Tensor, ""]]:
    """``cross_entropy`` of all regions and ``smooth_l1`` of those with an object.

    Both are divided by the regions of an image, and averages over images.

    Args:
        logits: of the classes and, last, of background.
        deltas: deviations from the regions, for each class or, with c = 1, for all of them.
        regions: what was predicted from, with what is wanted.
        totals: of the optimizer step.
        weights: of the deviations, see ``encode_deltas``.
        beta: distance from which smooth L1 is linear; 0 for L1.

    Source: Girshick, Fast R-CNN, ICCV 2015, equations 1 to 3. Checked against torchvision 0.29.2's RoIHeads, which
    divides by the regions of the batch: the same number wherever images have equally many.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares = regions.shares / totals.images_per_process
        classes = torch.where(regions.labels == BACKGROUND, logits.shape[1] - 1, regions.labels)
        entropy = F.cross_entropy(at_least_float32(logits), classes, reduction="none")
        (positive,) = torch.where(regions.labels != BACKGROUND)
        own = regions.labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        wanted = encode_deltas(regions.wanted[positive], regions.boxes[positive], weights=weights)
        found = at_least_float32(deltas[positive, own])
        distance = F.smooth_l1_loss(found, wanted, reduction="none", beta=beta).sum(-1)
        return {"cross_entropy": (entropy * shares).sum(), "smooth_l1": (distance * shares[positive]).sum()}


def consistent_losses(
    levels: Sequence[BoxPrediction],
    regions: SampledRegions,
    totals: LossTotals,
    *,
    weight: float,
) -> dict[str, Float[Tensor, ""]]:
    """``raw_cross_entropy`` and ``raw_smooth_l1``: the losses of every level, summed; none without levels.

    Smooth L1 is the paper's, linear from a distance of 1, whatever that of the main branch is.

    Args:
        levels: what is said of the regions on each of them.
        regions: what was predicted from, with what is wanted.
        totals: of the optimizer step.
        weight: of the sums.

    Source: Guo et al., AugFPN, CVPR 2020, section 3.1, equation 1. Checked against AuxiliaryBBoxHead of
    Gus-Guo/AugFPN, commit ffc7e5e.
    """
    each = [region_losses(*level, regions, totals, beta=FAST_RCNN_BETA) for level in levels]
    if not each:
        return {}
    return {f"raw_{name}": weight * torch.stack([terms[name] for terms in each]).sum() for name in each[0]}
