"""Detections of a file without what rounding makes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from boxwright.exporting.comparison import FLOAT32_TOLERANCE, Tolerance
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections


def settle_detections(expected: Detections, actual: Detections, tolerance: Tolerance = FLOAT32_TOLERANCE) -> Detections:
    """Give detections of a file the boxes and scores of the model where these differ by rounding alone.

    A box whose IoU with an object is all but one of COCO's thresholds is on the one side in the model and on the other
    in the file; of few objects, each is a third of a point of AP. What differs by more stays as it is.

    Args:
        expected: of the model, in pixels of the original image.
        actual: of the file, of the same image.
        tolerance: of boxes and scores, up to which two of a class are the same one.

    Returns:
        those of the file, best first.
    """
    boxes, scores = (to_numpy(one).copy() for one in (actual.boxes, actual.scores))
    theirs, their_scores, labels = (to_numpy(one) for one in (expected.boxes, expected.scores, expected.labels))
    is_free = np.ones(len(labels), dtype=np.bool_)
    sides = np.maximum(1.0, (theirs[:, 2:] - theirs[:, :2]).max(1, initial=0.0))
    for row, label in enumerate(to_numpy(actual.labels)):
        distances = np.abs(theirs - boxes[row]).max(1) / sides
        gaps = np.abs(their_scores - scores[row])
        same = is_free & (labels == label) & (distances <= tolerance.box) & (gaps <= tolerance.score)
        if same.any():
            nearest = int(np.where(same, distances, np.inf).argmin())
            is_free[nearest] = False
            boxes[row], scores[row] = theirs[nearest], their_scores[nearest]
    order = torch.from_numpy(np.argsort(-scores, kind="stable"))
    return replace(actual, boxes=torch.from_numpy(boxes), scores=torch.from_numpy(scores))[order]
