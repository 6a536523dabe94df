"""Accuracy of classes of images: top-1, top-5, and confusions of each class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_metrics import UNDEFINED
from boxwright_runtime.detections import Detections


class ClassRow(NamedTuple):
    """One class: the number of its images, accuracies, and the class that most of the others are taken for."""

    name: str
    category_id: int
    num_images: int
    top1: float
    top5: float
    taken_for: str | None


class ClassAccuracy(NamedTuple):
    """Fractions of images, in [0, 1], whose class is the likeliest, or among the five likeliest."""

    num_images: int
    top1: float
    top5: float
    per_class: tuple[ClassRow, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on what the numbers do not show."""
        if len(self.per_class) > 5:
            return ()
        return (f"There are {len(self.per_class)} classes: one of the five likeliest is always right.",)

    def to_json(self) -> dict[str, Any]:
        """Return ``num_images``, ``top1``, ``top5``, and ``per_class`` with a mapping per class."""
        rows = [row._asdict() for row in self.per_class]
        return {"num_images": self.num_images, "top1": self.top1, "top5": self.top5, "per_class": rows}


class LikeliestClasses(NamedTuple):
    """The class of each image, the one that is taken for the likeliest, -1 where there is none, and its score."""

    own: Int64[np.ndarray, " n"]
    likeliest: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]


def class_accuracy(data: DetectionData, detections: Mapping[int, Detections]) -> ClassAccuracy:
    """Compare the likeliest classes of images with their own.

    Args:
        data: images of one object each, as readers of classes read them.
        detections: of every image by image id, best first, each class once.

    Raises:
        ValueError: an image has not exactly one object, or there is no result for it.
    """
    own, first, _ = (values.tolist() for values in likeliest_classes(data, detections))
    best = [detections[record.image_id].labels[:5].tolist() for record in data.records]
    among = [label in labels for label, labels in zip(own, best, strict=True)]
    indices_of = defaultdict(list)
    for i, label in enumerate(own):
        indices_of[label].append(i)
    rows = []
    for label, category in enumerate(data.categories):
        indices = indices_of[label]
        wrong = Counter(first[i] for i in indices if first[i] not in (label, -1))
        likeliest = wrong.most_common(1)
        rows.append(
            ClassRow(
                category.name,
                category.id,
                len(indices),
                _fraction(sum(first[i] == label for i in indices), len(indices)),
                _fraction(sum(among[i] for i in indices), len(indices)),
                data.categories[likeliest[0][0]].name if likeliest else None,
            )
        )
    right = sum(one == other for one, other in zip(own, first, strict=True))
    return ClassAccuracy(len(own), _fraction(right, len(own)), _fraction(sum(among), len(own)), tuple(rows))


def likeliest_classes(data: DetectionData, detections: Mapping[int, Detections]) -> LikeliestClasses:
    """Return the classes of images beside the likeliest ones; arguments and errors as for ``class_accuracy``."""
    own, labels, scores = [], [], []
    for record in data.records:
        if len(record.labels) != 1:
            raise ValueError(f"{record.path} has {len(record.labels)} objects; an image to classify has one class")
        if record.image_id not in detections:
            raise ValueError(f"{record.path}: there is no result for this image")
        best = detections[record.image_id]
        own.append(int(record.labels[0]))
        labels.append(int(best.labels[0]) if len(best) else -1)
        scores.append(float(best.scores[0]) if len(best) else 0.0)
    return LikeliestClasses(
        np.array(own, dtype=np.int64), np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64)
    )


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else UNDEFINED
