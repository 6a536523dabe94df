"""Accuracy of classes of images: top-1, top-5, and confusions of each class."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

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


def class_accuracy(data: DetectionData, detections: Mapping[int, Detections]) -> ClassAccuracy:
    """Compare the likeliest classes of images with their own.

    Args:
        data: images of one object each, as readers of classes read them.
        detections: of every image by image id, best first, each class once.

    Raises:
        ValueError: an image has not exactly one object, or there is no result for it.
    """
    own, first, among = [], [], []
    for record in data.records:
        if len(record.labels) != 1:
            raise ValueError(f"{record.path} has {len(record.labels)} objects; an image to classify has one class")
        if record.image_id not in detections:
            raise ValueError(f"{record.path}: there is no result for this image")
        best = detections[record.image_id].labels[:5].tolist()
        own.append(int(record.labels[0]))
        first.append(best[0] if best else -1)
        among.append(own[-1] in best)
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


def _fraction(part: int, whole: int) -> float:
    return part / whole if whole else UNDEFINED
