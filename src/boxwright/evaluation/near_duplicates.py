"""Detections of one object twice, which heads without NMS may leave."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Int64

from boxwright.ops.boxes import iou
from boxwright.ops.nms import nms_keep_mask
from boxwright_runtime.detections import Detections

NEAR_DUPLICATE_IOU = 0.7
"""IoU above which two detections of one class are likely of one object."""

CONFIDENT_SCORE = 0.3
"""Detections with lower scores are not looked at; it is that of `boxwright predict`."""


def count_near_duplicates(
    detections: Mapping[int, Detections],
    num_classes: int,
    *,
    iou_threshold: float = NEAR_DUPLICATE_IOU,
    score_threshold: float = CONFIDENT_SCORE,
) -> Int64[np.ndarray, " k"]:
    """Count pairs of detections of one class that overlap too much to be two objects, by class.

    Args:
        detections: by image id.
        num_classes: of the data.
        iou_threshold: pairs are above it.
        score_threshold: least score of both.
    """
    counts = np.zeros(num_classes, dtype=np.int64)
    for one in detections.values():
        boxes, scores, labels = (torch.as_tensor(values) for values in (one.boxes, one.scores, one.labels))
        confident = scores >= score_threshold
        boxes, labels = boxes[confident], labels[confident]
        pairs = (iou(boxes[:, None], boxes) > iou_threshold) & (labels[:, None] == labels[None])
        first, _ = torch.nonzero(pairs.triu(1), as_tuple=True)
        counts += np.bincount(labels[first].numpy(), minlength=num_classes)
    return counts


def drop_near_duplicates(detections: Detections, *, iou_threshold: float = NEAR_DUPLICATE_IOU) -> Detections:
    """Leave out detections of which a better one of their class is kept that overlaps them above a threshold.

    Args:
        detections: of one image, in any order, which the others keep; of equal scores the first is the better one.
        iou_threshold: in [0, 1].

    Source: non-maximum suppression within classes, as ``torchvision.ops.batched_nms``, with which it was compared.
    """
    if len(detections) < 2:
        return detections
    boxes, scores, labels = (
        torch.as_tensor(values)[None] for values in (detections.boxes, detections.scores, detections.labels)
    )
    valid = torch.ones_like(labels, dtype=torch.bool)
    keep = nms_keep_mask(boxes, scores, labels, valid, iou_threshold, int(labels.max()) + 1)
    return detections[keep[0].numpy()]
