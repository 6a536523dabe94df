"""Areas that a file states against the boxes of the objects: where they disagree, and where they still agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from boxwright.data.doctor.areas import find_area_faults
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.records import Record
from object_records import make_record, of_records


def kinds(
    areas: Sequence[float], *, crowd: Sequence[bool] | None = None, outlines: bool = False
) -> list[tuple[str, str]]:
    """Kind and annotation of each finding, of objects whose boxes are 40 pixels wide and 30 high."""
    count = len(areas)
    boxes = [(float(10 * i), 5.0, 40.0, 30.0) for i in range(count)]
    record: Record = make_record((200, 300), boxes, None, crowd)
    record = replace(record, area=np.array(areas, dtype=np.float64))
    if outlines:
        record = replace(record, segmentations=tuple([[0.0, 0, 1, 0, 1, 1]] for _ in areas))
    findings = find_area_faults(ObjectTable.of(of_records([record])), "train")
    return [(finding.kind.name, finding.detail.split(":")[0]) for finding in findings]


def test_areas_up_to_a_fifth_beyond_their_box_are_roundings() -> None:
    """With the last pixel counted, 41 x 31 of them."""
    limit = 1.2 * 41 * 31
    assert kinds([1200, limit, limit + 1, 1.5 * 1200, 100 * 1200]) == [
        ("area_beyond_box", f"annotation {i} (a)") for i in (2, 3, 4)
    ]


def test_areas_of_no_pixel() -> None:
    assert kinds([1200, 0, 600]) == [("zero_area", "annotation 1 (a)")]


@pytest.mark.parametrize(
    ("crowd", "outlines", "is_reported"),
    [(None, False, True), ([False, True, False], False, False), (None, True, False)],
)
def test_areas_below_a_hundredth_of_their_box(crowd: list[bool] | None, outlines: bool, is_reported: bool) -> None:
    """Crowds and objects with an outline may have such areas."""
    expected = [("area_below_box", "annotation 1 (a)")] if is_reported else []
    assert kinds([1200, 11.9, 12], crowd=crowd, outlines=outlines) == expected
