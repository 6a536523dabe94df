"""The few images of a trial: of many classes, with few objects."""

from __future__ import annotations

from boxwright.data.few_images import choose_images
from object_records import make_record, of_records

BOX = (1.0, 2.0, 30.0, 40.0)


def test_every_class_has_an_image_before_any_has_two() -> None:
    records = [make_record((50, 50), [BOX] * 2, [0, 0], image_id=i) for i in range(20)]
    records += [make_record((50, 50), [BOX] * 9, [1] * 9, image_id=20), make_record((50, 50), [BOX], [2], image_id=21)]
    records += [make_record((50, 50), [], image_id=22), make_record((50, 50), [BOX], [3], [True], image_id=23)]
    few, others = choose_images(of_records(records, "a", "b", "c", "d"), 4, 5)
    assert [record.image_id for record in few.records] == [0, 1, 20, 21]
    assert [record.image_id for record in others.records] == [2, 3, 4, 5, 6]
    assert {int(label) for record in few.records for label in record.labels} == {0, 1, 2}


def test_fewer_where_fewer_have_objects() -> None:
    data = of_records([make_record((50, 50), [BOX]), make_record((50, 50), [])])
    assert [len(one.records) for one in choose_images(data, 8, 8)] == [1, 0]
    assert [one.records for one in choose_images(of_records([make_record((50, 50), [])]), 8, 8)] == [(), ()]
