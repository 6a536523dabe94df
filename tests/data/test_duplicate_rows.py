"""Objects that repeat others: those that a repair deletes, and those that it leaves."""

from __future__ import annotations

from boxwright.data.doctor.box_faults import duplicate_rows
from boxwright.data.doctor.object_table import ObjectTable
from object_records import make_record, of_records


def test_only_a_repetition_of_the_same_class_is_deleted() -> None:
    """Not the same box with another class, nor in another image, nor a crowd; of three equal ones two."""
    box, near, other = (10.0, 10.0, 50.0, 40.0), (11.0, 10.0, 50.0, 40.0), (30.0, 10.0, 50.0, 40.0)
    boxes = [box, box, box, near, other, box]
    records = [
        make_record((100, 120), boxes, [0, 1, 0, 0, 0, 0], [False] * 5 + [True], image_id=1),
        make_record((100, 120), [box], [0], image_id=2),
    ]
    rows = duplicate_rows(ObjectTable.of(of_records(records, "a", "b")))
    assert rows.tolist() == [False, False, True, True, False, False, False]
