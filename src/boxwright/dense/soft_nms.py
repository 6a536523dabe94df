"""Suppression that lowers scores instead of leaving boxes out."""

from __future__ import annotations

import torch

from boxwright.detections import Detections
from boxwright.ops.boxes import iou


def soft_nms(
    candidates: Detections, *, max_detections: int, sigma: float = 0.5, score_threshold: float = 0.001
) -> Detections:
    """The best candidate is kept and lowers the scores of those of its class that overlap it; so on with the next.

    score <- score * exp(-IoU^2 / sigma)

    Args:
        candidates: of one image, in any order.
        max_detections: most that are kept, and the number of rounds.
        sigma: the smaller, the more overlap costs; above 0.
        score_threshold: what falls to this score or below is left out.

    Returns:
        the kept ones with their lowered scores, best first; of equal scores the first candidate comes first.

    Source: Bodla et al., Soft-NMS, ICCV 2017, equation 3. Checked against batched_soft_nms of effdet 0.4.1, which goes
    on until no candidate is left.
    """
    boxes, labels, left = candidates.boxes, candidates.labels, candidates.scores.clone()
    rounds = min(max_detections, len(left))
    kept, scores = labels.new_zeros(rounds), left.new_zeros(rounds)
    for place in range(rounds):
        best = left.argmax(keepdim=True)
        kept[place], scores[place] = best[0], left[best[0]]
        overlap = iou(boxes, boxes[best]) * (labels == labels[best])
        left = left * torch.exp(-(overlap**2) / sigma)
        left[best] = -1
    enough = scores > score_threshold
    kept = kept[enough]
    return Detections(boxes[kept], scores[enough], labels[kept])
