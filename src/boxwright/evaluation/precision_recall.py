"""Average precision from detections that are matched already."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

RECALLS = np.linspace(0.0, 1.0, 101)
"""At which COCO reads the curve of precision."""


def interpolate_precision(hits: Bool[np.ndarray, " n"], num_objects: int) -> Float64[np.ndarray, 101]:
    """Return the best precision from each of COCO's 101 recalls on; 0 beyond the largest that is reached.

    Args:
        hits: of detections of a class, best first; False where one is of no object.
        num_objects: to be detected, at least 1.

    Source: pycocotools, COCOeval.accumulate.
    """
    at = np.flatnonzero(hits)
    precision = np.arange(1, len(at) + 1) / (at + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.arange(1, len(at) + 1) / num_objects
    curve: Float64[np.ndarray, 101] = np.append(envelope, 0.0)[np.searchsorted(recall, RECALLS, side="left")]
    return curve


def average_precision(hits: Bool[np.ndarray, " n"], num_objects: int) -> float:
    """Average precision over COCO's recalls; arguments as for ``interpolate_precision``."""
    return float(interpolate_precision(hits, num_objects).mean())
