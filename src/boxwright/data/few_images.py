"""A few images of a data set for a quick trial, and the same images with objects that are not theirs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boxwright.data.records import DetectionData, Record
from boxwright.data.size_survey import thin_out

CANDIDATES = 2000
"""Images that are chosen from, at most."""


def choose_images(data: DetectionData, count: int) -> tuple[DetectionData, DetectionData]:
    """Choose images with objects, of as many classes as possible, and of these the ones with fewest objects.

    Args:
        data: to choose from.
        count: of images, at most; fewer where fewer have objects.

    Returns:
        These images, and as many others, chosen from the rest in the same way.
    """
    having = replace(data, records=tuple(record for record in data.records if not record.crowd.all()))
    records = thin_out(having, CANDIDATES).records
    left = {index: _classes(record) for index, record in enumerate(records)}
    groups = []
    for _ in range(2):
        covered: set[int] = set()
        chosen: list[int] = []
        while left and len(chosen) < count:
            best = max(left, key=lambda index: (len(left[index] - covered), -len(records[index].labels), -index))
            covered |= left.pop(best)
            chosen.append(best)
        groups.append(replace(having, records=tuple(records[index] for index in sorted(chosen))))
    return groups[0], groups[1]


def exchange_objects(data: DetectionData, shift: int = 1) -> DetectionData:
    """Give each image the objects of the next one, at the same positions relative to its size.

    Args:
        data: the images.
        shift: 1 for the next image, 2 for the one after it, and so on.
    """
    records = data.records
    others = (*records[shift:], *records[:shift])
    return replace(data, records=tuple(_with_objects(own, other) for own, other in zip(records, others, strict=True)))


def _classes(record: Record) -> set[int]:
    return set(record.labels[~record.crowd].tolist())


def _with_objects(record: Record, other: Record) -> Record:
    scale = np.array([record.width / other.width, record.height / other.height] * 2)
    boxes = other.bbox_xywh * scale
    return replace(
        record,
        labels=other.labels,
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=other.crowd,
        annotation_ids=other.annotation_ids,
        segmentations=(),
    )
