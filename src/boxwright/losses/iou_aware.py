"""IoU-aware binary cross entropy."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def iou_aware_loss(
    logits: Float[Tensor, "*n k"],
    quality: Float[Tensor, "*n k"],
    positive: Bool[Tensor, "*n k"],
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    least: float = 0.01,
) -> Float[Tensor, "*n k"]:
    """Classification whose target is how well the box fits, and a little what the score is already.

    loss = w * BCE(logit, t);  t = max(p^alpha quality^(1 - alpha), least) and w = 1 where positive, t = 0 and w =
    p^gamma elsewhere; t is without gradient, and w is not.

    Args:
        logits: before the sigmoid.
        quality: IoU of the matched box at the object's class, 0 everywhere else.
        positive: where a prediction is matched, at the object's class.
        alpha: exponent of the score in the target, in [0, 1].
        gamma: exponent that lowers the weight of easy negatives.
        least: target of matches of poor boxes.

    Source: Chen et al., LW-DETR, 2024, after Cai et al., Align-DETR, 2023. Checked against
    ``loss_labels`` of roboflow/rf-detr 35ac6ab.
    """
    scores = logits.sigmoid()
    target = scores.detach() ** alpha * quality ** (1 - alpha)
    target = target.clamp(min=least).masked_fill(~positive, 0.0)
    weight = (scores**gamma).masked_fill(positive, 1.0)
    # The loss of torch would have no gradient of the weight.
    return weight * F.binary_cross_entropy_with_logits(logits, target, reduction="none")
