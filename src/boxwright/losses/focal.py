"""Focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.boxes import at_least_float32


def sigmoid_focal_loss(
    logits: Float[Tensor, "*n k"],
    target: Float[Tensor, "*n k"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, "*n k"]:
    """Compute a binary cross entropy that easy predictions hardly count in.

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


def summed_focal_loss(
    logits: Float[Tensor, "*n k"],
    labels: Int[Tensor, "*n"],
    weights: Float[Tensor, "*n"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sum ``sigmoid_focal_loss`` over anchors and classes, where hardly any anchor has an object.

    No targets are made, and only the gradient is stored for the backward: one number per logit.

    Args:
        logits: before the sigmoid.
        labels: the class of each anchor, or -1 for background.
        weights: of each anchor; 0 leaves it out.
        alpha: weight of positives, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.

    Source: as ``sigmoid_focal_loss``. Checked against it, the gradient against finite differences.
    """
    loss: Tensor = _SummedFocalLoss.apply(
        at_least_float32(logits).flatten(0, -2), labels.flatten(), weights.flatten(), alpha, gamma
    )
    return loss


def summed_focal_loss_of_levels(
    logits: Sequence[Float[Tensor, "b _n k"]],
    labels: Int[Tensor, "b n"],
    weights: Float[Tensor, "b n"] | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Float[Tensor, ""]:
    """Sum ``sigmoid_focal_loss`` over all levels; logits of all classes side by side would be copied once more.

    Args:
        logits: of each level, before the sigmoid.
        labels: the class of each anchor of all levels, or -1 for background.
        weights: of each anchor; 1 where None.
        alpha: weight of positives, in [0, 1].
        gamma: exponent that lowers the weight of easy predictions.
    """
    if weights is None:
        weights = torch.ones_like(labels, dtype=at_least_float32(logits[0]).dtype)
    sizes = [level.shape[1] for level in logits]
    parts = zip(logits, labels.split(sizes, 1), weights.split(sizes, 1), strict=True)
    return torch.stack([summed_focal_loss(*part, alpha=alpha, gamma=gamma) for part in parts]).sum()


class _SummedFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Float[Tensor, "n k"],
        labels: Int[Tensor, " n"],
        weights: Float[Tensor, " n"],
        alpha: float,
        gamma: float,
    ) -> Float[Tensor, ""]:
        (positive,) = torch.where(labels >= 0)
        own, own_weights = (positive, labels[positive]), weights[positive]
        # With z the logit of the wrong answer and q = sigmoid(z): loss = a q^gamma softplus(z)
        z = logits.index_put(own, -logits[own])
        q, loss = z.sigmoid(), F.softplus(z)
        power = q**gamma
        # d loss / d z = a q^gamma (gamma (1 - q) softplus(z) + q)
        slope = torch.addcmul(loss, loss, q, value=-1).mul_(gamma).add_(q).mul_(power)
        loss.mul_(power)
        own_loss, own_slope = loss[own], slope[own]
        loss[own] = 0
        slope.mul_((1 - alpha) * weights[:, None])
        slope[own] = -alpha * own_weights * own_slope
        ctx.save_for_backward(slope)
        return (1 - alpha) * (loss.sum(1) * weights).sum() + alpha * (own_loss * own_weights).sum()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * outer[0], None, None, None, None
