"""Operating points: the least score of detections of each class at which precision and recall are as they should be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.evaluation.matched_detections import MatchedDetections
from boxwright.evaluation.threshold_target import Target
from boxwright_runtime.detections import Detections

DEFAULT_THRESHOLD = 0.5
"""For classes that nothing is known of."""

FEW_OBJECTS = 10
"""A threshold that was chosen with fewer is said to be uncertain."""


@dataclass(frozen=True)
class OperatingPoint:
    """Detections of one class from a threshold on, counted at IoU 0.5.

    Args:
        name: of the class.
        threshold: least score; between that of the last detection that is wanted and that of the next one.
        true_positives: detections of an object, each of another one.
        false_positives: the other detections; those in crowds are neither.
        missed: objects without a detection.
        note: why the target is not reached, or what makes the threshold uncertain; empty where nothing does.
    """

    name: str
    threshold: float
    true_positives: int
    false_positives: int
    missed: int
    note: str = ""

    @property
    def precision(self) -> float:
        """Fraction of detections that are right; 0 without any."""
        return self.true_positives / max(self.true_positives + self.false_positives, 1)

    @property
    def recall(self) -> float:
        """Fraction of objects that are detected; 0 without any."""
        return self.true_positives / max(self.true_positives + self.missed, 1)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + missed)."""
        return 2 * self.true_positives / max(2 * self.true_positives + self.false_positives + self.missed, 1)

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, ready for ``json.dump``."""
        return {**asdict(self), "precision": self.precision, "recall": self.recall, "f1": self.f1}


def find_operating_points(
    matched: MatchedDetections, names: Sequence[str], target: Target | None = None
) -> tuple[OperatingPoint, ...]:
    """Find the threshold of each class that reaches a target.

    Of several thresholds with the best F1 the highest is taken. Where a precision is nowhere reached, it is the one
    with the highest precision; where a recall is not, the one of the greatest recall; both are noted, and so is a
    class without objects or without detections, which gets 0.5.

    Args:
        matched: at IoU 0.5.
        names: of the classes.
        target: the best F1 where None.
    """
    return tuple(
        _find_point(name, *columns, target or Target())
        for name, columns in zip(names, _columns_of_classes(matched, len(names)), strict=True)
    )


def count_at(
    matched: MatchedDetections, names: Sequence[str], thresholds: Sequence[float] | float
) -> tuple[OperatingPoint, ...]:
    """Count detections from given thresholds on.

    Args:
        matched: at IoU 0.5.
        names: of the classes.
        thresholds: of each class, or one for all.
    """
    least = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), len(names))
    points = []
    for name, (scores, hits, num_objects), threshold in zip(
        names, _columns_of_classes(matched, len(names)), least.tolist(), strict=True
    ):
        above = hits[scores >= threshold]
        right = int(above.sum())
        points.append(OperatingPoint(name, threshold, right, len(above) - right, num_objects - right))
    return tuple(points)


def trace_f1(
    matched: MatchedDetections, num_classes: int, thresholds: Float64[np.ndarray, " t"]
) -> Float64[np.ndarray, "classes t"]:
    """Compute F1 of each class from each threshold on; 0 for classes without objects.

    Args:
        matched: at IoU 0.5.
        num_classes: of the data.
        thresholds: rising.
    """
    traces = np.zeros((num_classes, len(thresholds)))
    for label, (scores, hits, num_objects) in enumerate(_columns_of_classes(matched, num_classes)):
        # Best first, so that the scores rise from the end.
        counts = len(scores) - np.searchsorted(scores[::-1], thresholds)
        right = np.concatenate([[0], np.cumsum(hits)])[counts]
        traces[label] = 2 * right / np.maximum(counts + num_objects, 1)
    return traces


def mean_f1(points: Sequence[OperatingPoint]) -> float:
    """Average F1 over the classes with objects; 0 without any."""
    values = [one.f1 for one in points if one.true_positives + one.missed]
    return float(np.mean(values)) if values else 0.0


def above_thresholds(
    detections: Mapping[int, Detections], thresholds: Sequence[float] | float
) -> dict[int, Detections]:
    """Select detections whose score is at least the threshold of their class.

    Args:
        detections: by image id.
        thresholds: of each class, by its label, or one for all.
    """
    return {image_id: one.above(thresholds) for image_id, one in detections.items()}


def thresholds_of(points: Sequence[OperatingPoint]) -> tuple[float, ...]:
    """Return the threshold of each class, by its label."""
    return tuple(one.threshold for one in points)


def _columns_of_classes(
    matched: MatchedDetections, num_classes: int
) -> list[tuple[Float64[np.ndarray, " _k"], Bool[np.ndarray, " _k"], int]]:
    """Return scores and hits of each class, best first, without those that count for nothing, and its objects."""
    order = np.argsort(-matched.scores, kind="stable")
    order = order[~matched.ignored[0, 0, order]]
    num_objects = np.bincount(matched.object_labels[matched.counted[0]], minlength=num_classes)
    columns = []
    for label in range(num_classes):
        rows = order[matched.labels[order] == label]
        columns.append((matched.scores[rows], matched.hits[0, 0, rows], int(num_objects[label])))
    return columns


def _find_point(
    name: str, scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"], num_objects: int, target: Target
) -> OperatingPoint:
    if not num_objects:
        false = int((scores >= DEFAULT_THRESHOLD).sum())
        return OperatingPoint(name, DEFAULT_THRESHOLD, 0, false, 0, f"no objects: {DEFAULT_THRESHOLD} is a guess")
    if not hits.any():
        false = int((scores >= DEFAULT_THRESHOLD).sum())
        note = f"none of {num_objects} objects is detected: {DEFAULT_THRESHOLD} is a guess"
        return OperatingPoint(name, DEFAULT_THRESHOLD, 0, false, num_objects, note)
    # Detections with one score are above a threshold together.
    ends = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))
    right = np.cumsum(hits)[ends]
    index, note = _choose(right, ends + 1, num_objects, target)
    if not note and num_objects < FEW_OBJECTS:
        note = f"{num_objects} objects are few"
    end = ends[index]
    lower = scores[end + 1] if end + 1 < len(scores) else None
    threshold = scores[end] if lower is None else _shortest_between(float(lower), float(scores[end]))
    true = int(right[index])
    return OperatingPoint(name, float(threshold), true, int(end) + 1 - true, num_objects - true, note)


def _choose(
    right: Int64[np.ndarray, " m"], count: Int64[np.ndarray, " m"], num_objects: int, target: Target
) -> tuple[int, str]:
    """Choose among thresholds, highest first, by how many detections are right, and how many there are."""
    precision, recall = right / count, right / num_objects
    if target.measure == "f1":
        # Compared as whole numbers times another: quotients of equal value may differ in the last bit.
        return int(np.argmax(np.round(2 * right / (count + num_objects), 12))), ""
    if target.measure == "precision":
        reached = np.flatnonzero(precision >= target.value)
        if len(reached):
            return int(reached[-1]), ""
        best = int(np.flatnonzero(precision == precision.max())[-1])
        return best, f"the highest precision is {precision[best]:.3f}"
    reached = np.flatnonzero(recall >= target.value)
    if len(reached):
        return int(reached[0]), ""
    best = int(np.argmax(recall))
    return best, f"the highest recall is {recall[best]:.3f}"


def _shortest_between(lower: float, upper: float) -> float:
    """Return the number with the fewest digits near the middle of two, above the lower and not above the upper."""
    middle = (lower + upper) / 2
    for digits in range(2, 17):
        value = round(middle, digits)
        # Scores are compared in float32.
        if lower < np.float32(value) <= upper and lower < value <= upper:
            return value
    return upper
