"""Objects that no detection is left for: more of them than a head finds, or than COCO counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from boxwright.contracts import LimitedHead
from boxwright.data.records import DetectionData, Record

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
        images = objects = total = most = 0
        for own in counts:
            largest = int(own.max(initial=0))
            total, most = total + int(own.sum()), max(most, largest)
            if largest > limit:
                images, objects = images + 1, objects + int((own - limit).clip(min=0).sum())
        return cls(images, objects, total, most)

    def hidden(self) -> str:
        """Say in words how many there are."""
        return f"{self.objects:,} of {self.total:,} objects"


def objects_per_class(record: Record, num_classes: int = 0) -> Int64[np.ndarray, " k"]:
    """Count objects of an image, crowd regions not counted, by class up to its last one, or by ``num_classes``."""
    return np.bincount(record.labels[~record.crowd], minlength=num_classes)


def class_totals(data: DetectionData) -> Int64[np.ndarray, " k"]:
    """Count objects of each class, crowd regions not counted."""
    totals = np.zeros(len(data.categories), dtype=np.int64)
    for record in data.records:
        totals += objects_per_class(record, len(totals))
    return totals


def head_limits(data: DetectionData, head: object) -> dict[str, str]:
    """Write a line for each option of a head that hides objects of this data, by the option's name.

    So many are hidden at least: the others still have to be predicted, and to be kept after NMS.
    """
    limits = head.object_limits() if isinstance(head, LimitedHead) else ()
    counts = [np.count_nonzero(~record.crowd, keepdims=True) for record in data.records] if limits else []
    lines = {}
    for option, limit, per_level in limits:
        beyond = Beyond.of(counts, limit)
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
    beyond = Beyond.of(map(objects_per_class, data.records), max_detections)
    if not beyond.objects:
        return None
    whose = "COCO counts" if max_detections == MAX_DETECTIONS else "counted are"
    return (
        f"Images with more than {max_detections} objects of one class: {beyond.images}. {whose} the best "
        f"{max_detections} detections per image and class, so {beyond.hidden()} cannot be found, and "
        f"AR{max_detections} cannot reach 1."
    )
