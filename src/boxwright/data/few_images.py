"""A few images of a data set for a quick trial."""

from __future__ import annotations

from dataclasses import replace

from boxwright.data.records import DetectionData, Record
from boxwright.data.size_survey import thin_out

CANDIDATES = 2000
"""Images that are chosen from, at most."""


def choose_images(data: DetectionData, count: int, others: int) -> tuple[DetectionData, DetectionData]:
    """Choose images with objects, of as many classes as possible, and of these the ones with fewest objects.

    Args:
        data: to choose from.
        count: of images, at most; fewer where fewer have objects.
        others: the same, of images chosen from the rest in the same way.

    Returns:
        These images, and the others.
    """
    having = replace(data, pseudo=None, records=tuple(record for record in data.records if not record.crowd.all()))
    records = thin_out(having, CANDIDATES).records
    left = {index: _classes(record) for index, record in enumerate(records)}
    groups = []
    for size in (count, others):
        covered: set[int] = set()
        chosen: list[int] = []
        while left and len(chosen) < size:
            best = max(left, key=lambda index: (len(left[index] - covered), -len(records[index].labels), -index))
            covered |= left.pop(best)
            chosen.append(best)
        groups.append(replace(having, records=tuple(records[index] for index in sorted(chosen))))
    return groups[0], groups[1]


def _classes(record: Record) -> set[int]:
    return set(record.labels[~record.crowd].tolist())
