"""Detections of one image matched to its ground truth: hits, misses and inventions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.records import Record
from boxwright_runtime.detections import Detections


class Outcomes(NamedTuple):
    """Matches of an image, as positions in its detections and in its objects.

    Args:
        hits: (n, 2) a detection and its object.
        missed: objects without a detection; crowds are none.
        invented: detections without an object.
        ignored: detections in crowds, which are neither hits nor inventions.
    """

    hits: Int64[np.ndarray, "n 2"]
    missed: Int64[np.ndarray, " m"]
    invented: Int64[np.ndarray, " k"]
    ignored: Int64[np.ndarray, " i"]


def match_to_ground_truth(detections: Detections, record: Record, *, iou_threshold: float = 0.5) -> Outcomes:
    """Match boxes greedily: the best detection first takes the free object of its class that it overlaps most.

    Args:
        detections: of the image.
        record: its objects.
        iou_threshold: least IoU of a hit.

    **Source**: COCO's evaluation (pycocotools, ``COCOeval.evaluateImg``), with one threshold and without limits on
    areas and numbers. A detection that has no free object and lies in a crowd of its class by as large a part of its
    own area is ignored.
    """
    scores = np.asarray(detections.scores.tolist(), dtype=np.float64)
    labels = np.asarray(detections.labels.tolist(), dtype=np.int64)
    boxes = np.asarray(detections.boxes.tolist(), dtype=np.float64).reshape(-1, 4)
    overlaps = _overlaps(boxes, record.boxes().astype(np.float64), record.crowd)
    overlaps[labels[:, None] != record.labels[None]] = 0
    least = min(iou_threshold, 1 - 1e-10)
    objects = np.full(len(labels), -1, dtype=np.int64)
    ignored = np.zeros(len(labels), dtype=np.bool_)
    is_free = ~record.crowd
    for detection in np.argsort(-scores, kind="stable").tolist():
        row = overlaps[detection]
        free = np.where(is_free & (row >= least), row, -1.0)
        if len(free) and free.max() >= 0:
            # Of equal ones the last, as COCO does.
            objects[detection] = len(free) - 1 - int(free[::-1].argmax())
            is_free[objects[detection]] = False
        else:
            ignored[detection] = (row[record.crowd] >= least).any()
    hits = np.flatnonzero(objects >= 0)
    return Outcomes(
        hits=np.stack([hits, objects[hits]], 1),
        missed=np.flatnonzero(is_free),
        invented=np.flatnonzero((objects < 0) & ~ignored),
        ignored=np.flatnonzero(ignored),
    )


def _overlaps(
    detected: Float64[np.ndarray, "n 4"], annotated: Float64[np.ndarray, "m 4"], crowd: Bool[np.ndarray, " m"]
) -> Float64[np.ndarray, "n m"]:
    """IoU of all pairs; with a crowd, the part of the detection that lies in it."""
    sides = np.minimum(detected[:, None, 2:], annotated[None, :, 2:])
    sides = (sides - np.maximum(detected[:, None, :2], annotated[None, :, :2])).clip(0)
    common = sides.prod(2)
    areas, objects = ((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (detected, annotated))
    whole = np.where(crowd[None], areas[:, None], areas[:, None] + objects[None] - common)
    parts: Float64[np.ndarray, "n m"] = np.divide(common, whole, out=np.zeros_like(common), where=whole > 0)
    return parts
