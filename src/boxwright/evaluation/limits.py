"""How many objects no detection is left for: more of them than a head finds, or than COCO counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from boxwright.data.records import DetectionData

MAX_DETECTIONS = 100
"""COCO's: per picture and class, the best so many detections are evaluated."""

LIMITS = ("num_queries", "max_detections")
"""Options of heads that say how many objects are found in a picture."""


class Beyond(NamedTuple):
    """Of ``total`` objects, ``objects`` in ``pictures`` pictures are beyond a limit; ``most`` would hide none."""

    pictures: int
    objects: int
    total: int
    most: int

    @classmethod
    def of(cls, counts: Int64[np.ndarray, "b k"], limit: int) -> Beyond:
        """Of the numbers of objects that share a limit."""
        over = (counts - limit).clip(min=0)
        return cls(int(over.any(1).sum()), int(over.sum()), int(counts.sum()), int(counts.max(initial=0)))

    def hidden(self) -> str:
        """The objects, as words."""
        return f"{self.objects:,} of {self.total:,} objects"


def num_objects(data: DetectionData) -> Int64[np.ndarray, "b k"]:
    """Objects per picture and class, crowd regions not counted."""
    counts = np.zeros((len(data.records), len(data.categories)), dtype=np.int64)
    for count, record in zip(counts, data.records, strict=True):
        np.add.at(count, record.labels[~record.crowd], 1)
    return counts


def head_limits(data: DetectionData, head: object) -> dict[str, str]:
    """A line for each option of a head that hides objects of this data, by the option's name."""
    counts = num_objects(data).sum(1, keepdims=True)
    lines = {}
    for option in LIMITS:
        limit = getattr(head, option, None)
        if not isinstance(limit, int):
            continue
        beyond = Beyond.of(counts, limit)
        if beyond.objects:
            lines[option] = (
                f"{data.source}: {beyond.pictures} of {len(data.records)} pictures have more than {limit} objects: "
                f"{beyond.hidden()} cannot be found (head.{option} is {limit}; {beyond.most} would hide none)"
            )
    return lines


def coco_limit(data: DetectionData, max_detections: int = MAX_DETECTIONS) -> str | None:
    """A line where evaluation hides objects of this data."""
    beyond = Beyond.of(num_objects(data), max_detections)
    if not beyond.objects:
        return None
    whose = "COCO counts" if max_detections == MAX_DETECTIONS else "counted are"
    return (
        f"Pictures with more than {max_detections} objects of one class: {beyond.pictures}. {whose} the best "
        f"{max_detections} detections per picture and class, so {beyond.hidden()} cannot be found, and "
        f"AR{max_detections} cannot reach 1."
    )
