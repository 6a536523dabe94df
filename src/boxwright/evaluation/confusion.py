"""Confusion of classes, with a row and a column for the background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import IoUType, overlap_objects
from boxwright.evaluation.error_table import FOREGROUND_IOU
from boxwright.evaluation.operating_points import above_thresholds
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections


class ConfusedPair(NamedTuple):
    """Objects of one class that are taken for another one: names of both, and their number."""

    name: str
    taken_for: str
    num_objects: int


@dataclass(frozen=True, eq=False)
class Confusion:
    """Objects by their class and that of their detection.

    Args:
        counts: row i, column j: objects of class i with a detection of class j. The last row: detections of no object,
            the last column: objects without a detection.
        names: of the classes.
        thresholds: least score of detections of each class.
    """

    counts: Int64[np.ndarray, "rows rows"]
    names: tuple[str, ...]
    thresholds: tuple[float, ...]

    def most_confused(self, count: int = 10) -> list[ConfusedPair]:
        """Return the pairs of classes that are confused most often, those first."""
        own = self.counts[:-1, :-1] * (1 - np.eye(len(self.names), dtype=np.int64))
        order = np.argsort(-own, axis=None, kind="stable")[:count]
        pairs = zip(*np.unravel_index(order, own.shape), strict=True)
        return [ConfusedPair(self.names[i], self.names[j], int(own[i, j])) for i, j in pairs if own[i, j]]

    def to_json(self) -> dict[str, Any]:
        """Return counts, names and thresholds, ready for ``json.dump``."""
        return {"counts": self.counts.tolist(), "names": list(self.names), "thresholds": list(self.thresholds)}


def count_confusion(
    data: DetectionData,
    detections: Mapping[int, Detections],
    *,
    thresholds: Sequence[float] | float = 0.5,
    iou_type: IoUType = "bbox",
) -> Confusion:
    """Match detections with objects of any class, best first, and count the classes of both.

    Args:
        data: the images and their objects.
        detections: by image id.
        thresholds: least score of each class, by its label, or of all.
        iou_type: overlap of boxes, or of masks.

    Raises:
        ValueError: masks are needed and missing.

    Source: hotcoco's confusion_matrix, against which it is checked; differs in that detections in crowds are left out.
    """
    data = restore_dropped(data)
    num_classes = len(data.categories)
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    selected = above_thresholds(detections, thresholds)
    for record in data.records:
        of_objects = record.labels[~record.crowd]
        if record.image_id not in selected:
            _count(counts, of_objects, num_classes)
            continue
        one = selected[record.image_id]
        one = one[np.argsort(-to_numpy(one.scores), kind="stable")]
        overlaps = overlap_objects(data, record, one, iou_type)
        matches = _match(overlaps[:, ~record.crowd])
        matched = matches >= 0
        labels = to_numpy(one.labels)
        missed = np.delete(of_objects, matches[matched])
        invented = ~matched & ~(overlaps[:, record.crowd] >= FOREGROUND_IOU).any(1)
        _count(counts, of_objects[matches[matched]], labels[matched])
        _count(counts, missed, num_classes)
        _count(counts, num_classes, labels[invented])
    least = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), num_classes)
    return Confusion(counts, tuple(one.name for one in data.categories), tuple(least.tolist()))


def confuse_classes(
    own: Int64[np.ndarray, " n"], likeliest: Int64[np.ndarray, " n"], names: Sequence[str]
) -> Confusion:
    """Count images by their own class and the likeliest one.

    Args:
        own: label of each image.
        likeliest: label that each is taken for; -1 for none.
        names: of the classes.
    """
    counts = np.zeros((len(names) + 1, len(names) + 1), dtype=np.int64)
    # -1 is the last column, of what has no class.
    _count(counts, own, likeliest)
    return Confusion(counts, tuple(names), (0.0,) * len(names))


def _count(
    counts: Int64[np.ndarray, "k k"], rows: Int64[np.ndarray, " _n"] | int, columns: Int64[np.ndarray, " _m"] | int
) -> None:
    np.add.at(counts, tuple(np.broadcast_arrays(rows, columns)), 1)


def _match(overlaps: Float64[np.ndarray, "n m"]) -> Int64[np.ndarray, " n"]:
    """Give each detection, in order, the free object that it overlaps most; -1 where none is near enough."""
    matches = np.full(len(overlaps), -1)
    is_free: Bool[np.ndarray, " m"] = np.ones(overlaps.shape[1], dtype=np.bool_)
    for index, row in enumerate(overlaps):
        candidates = np.where(is_free & (row >= FOREGROUND_IOU), row, -1.0)
        if len(candidates) and candidates.max() >= 0:
            # Of equal ones the last, as hotcoco does.
            matches[index] = len(candidates) - 1 - int(candidates[::-1].argmax())
            is_free[matches[index]] = False
    return matches
