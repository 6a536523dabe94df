"""Focal loss."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sigmoid_focal_loss(
    logits: Float[Tensor, "*n k"],
    target: Float[Tensor, "*n k"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*n k"]:
    """Binary cross entropy that easy predictions hardly count in.

    loss = alpha_t * (1 - p_t)^gamma * BCE(logit, target), with p_t = p and alpha_t = alpha where the target is 1,
    1 - p and 1 - alpha where it is 0

    Args:
        logits: before the sigmoid.
        target: 0 or 1 for each class.
        alpha: weight of positives, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.

    Source: Lin et al., RetinaNet, ICCV 2017, equation 5. Checked against torchvision.ops.sigmoid_focal_loss and
    fundamentalvision/Deformable-DETR 11169a6.
    """
    p = logits.sigmoid()
    wrong = p + target - 2 * p * target
    weight = (1 - alpha + (2 * alpha - 1) * target) * wrong**gamma
    return weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
