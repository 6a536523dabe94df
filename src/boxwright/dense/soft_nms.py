"""Suppression that lowers scores instead of leaving boxes out."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from boxwright.ops.boxes import iou

SIGMA = 0.5
"""Width of the decay over IoU."""


def soft_nms(
    boxes: Float[Tensor, "b n 4"],
    scores: Float[Tensor, "b n"],
    labels: Int[Tensor, "b n"],
    valid: Bool[Tensor, "b n"],
    *,
    max_detections: int,
    sigma: float = SIGMA,
    score_threshold: float = 0.001,
) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"], Bool[Tensor, "b m"]]:
    """Keep the best box, lower the scores of those of its class that overlap it, and so on with the next.

    score <- score * exp(-IoU^2 / sigma)

    Args:
        boxes: corner boxes, in any order.
        scores: in [0, 1].
        labels: only boxes of one class lower each other's scores.
        valid: the others are left out.
        max_detections: most that are kept, and the number of rounds.
        sigma: the smaller, the more overlap costs; above 0.
        score_threshold: boxes whose score falls to this or below are left out.

    Returns:
        Indices of ``max_detections`` boxes of each image, best first, their lowered scores, and True for those that
        are kept. Of equal scores the first box comes first.

    Source: Bodla et al., Soft-NMS, ICCV 2017, equation 3. Checked against batched_soft_nms of effdet 0.4.1, which goes
    on until no box is left.
    """
    left = torch.where(valid, scores, -1.0)
    kept, kept_scores = [], []
    for _ in range(max_detections):
        best = left.argmax(1, keepdim=True)
        kept.append(best)
        kept_scores.append(left.gather(1, best))
        box = boxes.gather(1, best[..., None].expand(-1, -1, 4))
        overlap = iou(boxes, box) * (labels == labels.gather(1, best))
        left = (left * torch.exp(-(overlap**2) / sigma)).scatter(1, best, -1.0)
    lowered = torch.cat(kept_scores, 1)
    return torch.cat(kept, 1), lowered, lowered > score_threshold
