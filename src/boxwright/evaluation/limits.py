"""Objects that no detection is left for: more of them than a head finds, or than COCO counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from boxwright.contracts import LimitedHead
from boxwright.data.records import DetectionData, Record, object_columns

MAX_DETECTIONS = 100
"""COCO's: per image and class, the best so many detections are evaluated."""


class Beyond(NamedTuple):
    """Objects beyond a limit: ``objects`` of ``total``, in ``images`` images; one image has ``most`` of them."""

    images: int
    objects: int
    total: int
    most: int

    @classmethod
    def of(cls, counts: Iterable[Int64[np.ndarray, " _k"]], limit: int) -> Beyond:
        """Count, from the numbers of objects that share a limit, image by image."""
        parts = list(counts)
        images = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls.of_groups(images, np.concatenate([np.zeros(0, dtype=np.int64), *parts]), limit)

    @classmethod
    def of_groups(cls, images: Int64[np.ndarray, " g"], counts: Int64[np.ndarray, " g"], limit: int) -> Beyond:
        """Count, from the image of each group of objects that share a limit, and the number of its objects."""
        is_over = counts > limit
        return cls(
            images=len(np.unique(images[is_over])),
            objects=int((counts[is_over] - limit).sum()),
            total=int(counts.sum()),
            most=int(counts.max(initial=0)),
        )

    def hidden(self) -> str:
        """Say in words how many there are."""
        return f"{self.objects:,} of {self.total:,} objects"


def objects_per_class(record: Record, num_classes: int = 0) -> Int64[np.ndarray, " k"]:
    """Count objects of an image, crowd regions not counted, by class up to its last one, or by ``num_classes``."""
    return np.bincount(record.labels[~record.crowd], minlength=num_classes)


def class_totals(data: DetectionData) -> Int64[np.ndarray, " k"]:
    """Count objects of each class, crowd regions not counted."""
    objects = object_columns(data.records)
    return np.bincount(objects.labels[~objects.crowd], minlength=len(data.categories))


def note_nothing_to_count(data: DetectionData, split: str) -> str | None:
    """Write a line if no object of a split can be found: there are none, or all are crowd regions.

    Args:
        data: the split, which a detector is measured on.
        split: its name.
    """
    objects = object_columns(data.records)
    if not objects.crowd.all():
        return None
    regions = len(objects.crowd)
    why = f"; its {regions:,} annotations are crowd regions (iscrowd 1), which do not count" if regions else ""
    return f"{data.source}: no countable object in {split}: AP cannot be measured{why}"


def head_limits(data: DetectionData, head: object) -> dict[str, str]:
    """Write a line for each option of a head that hides objects of this data, by the option's name.

    So many are hidden at least: the others still have to be predicted, and to be kept after NMS.
    """
    limits = head.object_limits() if isinstance(head, LimitedHead) else ()
    objects = object_columns(data.records)
    counts = np.bincount(objects.image_index[~objects.crowd])
    lines = {}
    for option, limit, per_level in limits:
        beyond = Beyond.of_groups(np.arange(len(counts)), counts, limit)
        if beyond.objects:
            shared = " where those of an image share a level, as objects of one size do" if per_level else ""
            lines[option] = (
                f"{data.source}: {beyond.images} of {len(data.records)} images have more than {limit} objects: "
                f"{beyond.hidden()} cannot be found{shared} (head.{option} is {limit} in prediction; the most in an "
                f"image are {beyond.most})"
            )
    return lines


def coco_limit(data: DetectionData, max_detections: int = MAX_DETECTIONS) -> str | None:
    """Write a line if evaluation hides objects of this data."""
    beyond = Beyond.of_groups(*_objects_of_classes(data), max_detections)
    if not beyond.objects:
        return None
    whose = "COCO counts" if max_detections == MAX_DETECTIONS else "counted are"
    return (
        f"Images with more than {max_detections} objects of one class: {beyond.images}. {whose} the best "
        f"{max_detections} detections per image and class, so {beyond.hidden()} cannot be found, and "
        f"AR{max_detections} cannot reach 1."
    )


def _objects_of_classes(data: DetectionData) -> tuple[Int64[np.ndarray, " g"], Int64[np.ndarray, " g"]]:
    """Count objects of each class in each image that has any; return the images and the counts."""
    objects = object_columns(data.records)
    single = ~objects.crowd
    keys = objects.image_index[single] * len(data.categories) + objects.labels[single]
    keys, counts = np.unique(keys, return_counts=True)
    return keys // len(data.categories), counts
