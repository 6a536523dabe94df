"""Varifocal loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def varifocal_loss(
    logits: Float[Tensor, "*n k"],
    quality: Float[Tensor, "*n k"],
    positive: Bool[Tensor, "*n k"],
    *,
    alpha: float = 0.75,
    gamma: float = 2.0,
) -> Float[Tensor, "*n k"]:
    """Classification whose target is how well the box fits.

    loss = w * BCE(logit, quality);  w = quality where positive, alpha * p^gamma elsewhere, without gradient

    Args:
        logits: before the sigmoid.
        quality: IoU of the matched box at the object's class, 0 everywhere else.
        positive: where a prediction is matched, at the object's class; a match of IoU 0 has weight 0.
        alpha: weight of negatives.
        gamma: exponent that lowers the weight of easy negatives.

    Source: Zhang et al., VarifocalNet, CVPR 2021, equation 2, in the form of lyuwenyu/RT-DETR 068dfde (PyTorch detaches
    p in the weight, Paddle does not). Checked against it and against transformers' RTDetrLoss.
    """
    weight = torch.where(positive, quality, alpha * logits.detach().sigmoid() ** gamma)
    return F.binary_cross_entropy_with_logits(logits, quality, weight=weight, reduction="none")
