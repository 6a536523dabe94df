"""The few images of a trial: of many classes, with few objects; and the same with objects of other images."""

from __future__ import annotations

import numpy as np

from boxwright.data.few_images import choose_images, exchange_objects
from object_records import make_record, of_records

BOX = (1.0, 2.0, 30.0, 40.0)


def test_every_class_has_an_image_before_any_has_two() -> None:
    records = [make_record((50, 50), [BOX] * 2, [0, 0], image_id=i) for i in range(20)]
    records += [make_record((50, 50), [BOX] * 9, [1] * 9, image_id=20), make_record((50, 50), [BOX], [2], image_id=21)]
    records += [make_record((50, 50), [], image_id=22), make_record((50, 50), [BOX], [3], [True], image_id=23)]
    few, others = choose_images(of_records(records, "a", "b", "c", "d"), 4)
    assert [record.image_id for record in few.records] == [0, 1, 20, 21]
    assert [record.image_id for record in others.records] == [2, 3, 4, 5]
    assert {int(label) for record in few.records for label in record.labels} == {0, 1, 2}


def test_fewer_where_fewer_have_objects() -> None:
    data = of_records([make_record((50, 50), [BOX]), make_record((50, 50), [])])
    assert [len(one.records) for one in choose_images(data, 8)] == [1, 0]
    assert [one.records for one in choose_images(of_records([make_record((50, 50), [])]), 8)] == [(), ()]


def test_objects_move_to_the_image_before_in_proportion() -> None:
    first = make_record((100, 200), [BOX], [0], image_id=1)
    second = make_record((50, 400), [(40, 5, 80, 10), BOX], [1, 0], image_id=2)
    one, two = exchange_objects(of_records([first, second], "a", "b")).records
    assert (one.image_id, one.path, one.labels.tolist()) == (1, first.path, [1, 0])
    np.testing.assert_allclose(one.bbox_xywh[0], [20, 10, 40, 20])
    np.testing.assert_allclose(two.bbox_xywh[0], [2, 1, 60, 20])
    assert two.labels.tolist() == [0]
    again = exchange_objects(of_records([first, second], "a", "b"), 2)
    assert [record.labels.tolist() for record in again.records] == [[0], [1, 0]]
