"""Matchability-aware loss."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def matchability_loss(
    logits: Float[Tensor, "*n k"],
    quality: Float[Tensor, "*n k"],
    positive: Bool[Tensor, "*n k"],
    *,
    gamma: float = 1.5,
) -> Float[Tensor, "*n k"]:
    """Classification whose target is how well the box fits, and in which matches of poor boxes count in full.

    loss = w * BCE(logit, quality^gamma);  w = 1 where positive, p^gamma elsewhere, without gradient

    Args:
        logits: before the sigmoid.
        quality: IoU of the matched box at the object's class, 0 everywhere else.
        positive: where a prediction is matched, at the object's class.
        gamma: exponent of the quality, and of the weight of negatives.

    Source: Huang et al., DEIM, CVPR 2025, equation 4. Checked against ``loss_labels_mal`` of ShihuaHuang95/DEIM
    a9aa4ad.
    """
    weight = logits.detach().sigmoid().pow(gamma).masked_fill(positive, 1.0)
    return F.binary_cross_entropy_with_logits(logits, quality**gamma, weight=weight, reduction="none")
