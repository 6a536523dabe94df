"""How often the class of an image is found: top-1, top-5, and what each class is taken for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from boxwright.data.records import DetectionData
from boxwright.detections import Detections
from boxwright.evaluation.coco_metrics import UNDEFINED


class ClassRow(NamedTuple):
    """One class: how many images it has, how many of them are found, and what most of the others are taken for."""

    name: str
    category_id: int
    num_images: int
    top1: float
    top5: float
    taken_for: str | None


class ClassAccuracy(NamedTuple):
    """Shares of images, in [0, 1], whose class is the likeliest, or among the five likeliest."""

    num_images: int
    top1: float
    top5: float
    per_class: tuple[ClassRow, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers do not show, one line each, for the user."""
        if len(self.per_class) > 5:
            return ()
        return (f"There are {len(self.per_class)} classes: one of the five likeliest is always right.",)

    def to_json(self) -> dict[str, Any]:
        """``num_images``, ``top1``, ``top5``, and ``per_class`` with a mapping per class."""
        rows = [row._asdict() for row in self.per_class]
        return {"num_images": self.num_images, "top1": self.top1, "top5": self.top5, "per_class": rows}


def class_accuracy(data: DetectionData, detections: Mapping[int, Detections]) -> ClassAccuracy:
    """Compare the likeliest classes of images with their own.

    Args:
        data: images of one object each, as ``open_class_folders`` reads them.
        detections: of every image by image id, best first, each class once.

    Raises:
        ValueError: an image has not exactly one object, or nothing was said of it.
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
    places_of = defaultdict(list)
    for place, label in enumerate(own):
        places_of[label].append(place)
    rows = []
    for label, category in enumerate(data.categories):
        places = places_of[label]
        wrong = Counter(first[i] for i in places if first[i] not in (label, -1))
        likeliest = wrong.most_common(1)
        rows.append(
            ClassRow(
                category.name,
                category.id,
                len(places),
                _share(sum(first[i] == label for i in places), len(places)),
                _share(sum(among[i] for i in places), len(places)),
                data.categories[likeliest[0][0]].name if likeliest else None,
            )
        )
    right = sum(one == other for one, other in zip(own, first, strict=True))
    return ClassAccuracy(len(own), _share(right, len(own)), _share(sum(among), len(own)), tuple(rows))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else UNDEFINED
