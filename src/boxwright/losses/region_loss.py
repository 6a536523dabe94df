"""The losses of what is said about regions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boxwright.losses.anchor_matching import BACKGROUND
from boxwright.losses.region_assignment import TrainingRegions
from boxwright.ops.box_deltas import Weights, encode_deltas
from boxwright.ops.boxes import at_least_float32
from boxwright.structures import LossTotals

SMOOTH_L1_BETA = 1 / 9


def region_losses(
    logits: Float[Tensor, "r k"],
    deltas: Float[Tensor, "r c 4"],
    regions: TrainingRegions,
    totals: LossTotals,
    *,
    weights: Weights,
) -> dict[str, Float[Tensor, ""]]:
    """``cross_entropy`` of all regions and ``smooth_l1`` of those with an object.

    Both are divided by the regions of a picture, and averages over pictures.

    Args:
        logits: of the classes and, last, of background.
        deltas: deviations from the regions, for each class or, with c = 1, for all of them.
        regions: what was predicted from, with what is wanted.
        totals: of the optimiser step.
        weights: of the deviations, see ``encode_deltas``.

    Source: Girshick, Fast R-CNN, ICCV 2015, equations 1 to 3. Checked against torchvision 0.29.2's RoIHeads, which
    divides by the regions of the batch: the same number wherever pictures have equally many.
    """
    with torch.autocast(logits.device.type, enabled=False):
        shares = regions.shares / totals.image_share
        classes = torch.where(regions.labels == BACKGROUND, logits.shape[1] - 1, regions.labels)
        entropy = F.cross_entropy(at_least_float32(logits), classes, reduction="none")
        (positive,) = torch.where(regions.labels != BACKGROUND)
        own = regions.labels[positive] if deltas.shape[1] > 1 else torch.zeros_like(positive)
        wanted = encode_deltas(regions.wanted[positive], regions.boxes[positive], weights=weights)
        found = at_least_float32(deltas[positive, own])
        distance = F.smooth_l1_loss(found, wanted, reduction="none", beta=SMOOTH_L1_BETA).sum(-1)
        return {"cross_entropy": (entropy * shares).sum(), "smooth_l1": (distance * shares[positive]).sum()}
