"""What the queries are worth that an encoder selected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, cxcywh_to_xyxy, iou
from boxwright.queries.matching import NormalizedTargets
from boxwright.structures import SelectionQuality


@torch.no_grad()
def selection_quality(
    logits: Float[Tensor, "b q k"],
    boxes_cxcywh_norm: Float[Tensor, "b q 4"],
    targets: Sequence[NormalizedTargets],
    *,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.5,
) -> SelectionQuality:
    """Count the selected queries whose best score, and whose best IoU with an object, are above the thresholds.

    Args:
        logits: of the selected queries.
        boxes_cxcywh_norm: likewise.
        targets: one per image.
        score_threshold: in [0, 1].
        iou_threshold: in [0, 1].

    Source: Zhao et al., RT-DETR, CVPR 2024, section 5.3 and Table 4 (thresholds of 0.5). The authors published no code
    for it; that the IoU is the best with any object of the image is our reading.
    """
    confident = at_least_float32(logits).sigmoid().amax(-1) > score_threshold
    corners = cxcywh_to_xyxy(at_least_float32(boxes_cxcywh_norm))
    both = 0
    for image, target in enumerate(targets):
        if len(target.labels):
            wanted = cxcywh_to_xyxy(target.boxes_cxcywh_norm).to(corners.device)
            overlap = iou(corners[image][:, None], wanted).amax(-1)
            both += int((confident[image] & (overlap > iou_threshold)).sum())
    return SelectionQuality(confident.numel(), int(confident.sum()), both)
