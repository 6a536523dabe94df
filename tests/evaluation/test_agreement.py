"""Agreement beyond that with exchanged annotations: against all permutations, and of detections made by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch

from boxwright.data.records import DetectionData
from boxwright.evaluation.agreement import exchange_score, measure_agreement
from boxwright_runtime.detections import Detections
from exchanged_annotations import exchange_classes, exchange_objects
from object_records import make_record, of_records

COUNT = 12


@pytest.mark.parametrize("own", [[0, 1, 2, 3, 4], [2, 0, 0, 1, 2]])
def test_a_score_is_in_standard_deviations_of_all_permutations(own: list[int]) -> None:
    fits = np.random.default_rng(0).random((5, 5))
    sums = [sum(fits[row, column] for row, column in enumerate(order)) for order in permutations(own)]
    expected = (sums[0] - np.mean(sums)) / np.std(sums)
    assert exchange_score(fits, np.array(own)) == pytest.approx(expected)


def test_good_rows_and_good_columns_are_no_agreement() -> None:
    fits = np.random.default_rng(0).random((6, 1)) + np.random.default_rng(1).random((1, 6))
    assert exchange_score(fits, np.arange(6)) == 0
    assert exchange_score(fits[:1], np.zeros(1, np.int64)) == 0


def images(seed: int = 0) -> DetectionData:
    """Images of several sizes, each with three boxes of two classes at random, and a crowd region."""
    random = np.random.default_rng(seed)
    records = []
    for index in range(COUNT):
        height, width = random.integers(40, 100, 2).tolist()
        corners = random.random((4, 2)) * [width / 2, height / 2]
        boxes = [(x, y, width / 4, height / 4) for x, y in corners.tolist()]
        crowd = [False, False, True, False]
        records.append(make_record((height, width), boxes, random.integers(0, 2, 4).tolist(), crowd, index + 1))
    return of_records(records, "a", "b")


def perfect(data: DetectionData) -> dict[int, Detections]:
    """Each object of each image, with one score."""
    return {
        record.image_id: Detections(
            torch.from_numpy(record.boxes()),
            torch.full((len(record.labels),), 0.5),
            torch.from_numpy(record.labels),
            None,
            data.categories,
        )
        for record in data.records
    }


def test_perfect_detections_agree_with_their_own_objects_alone() -> None:
    data = images()
    right, wrong = measure_agreement(data, perfect(data)), measure_agreement(exchange_objects(data), perfect(data))
    assert right.images == COUNT
    assert right.boxes == pytest.approx(COUNT - 1, rel=0.2)  # the most that there can be
    assert right.classes is not None
    assert right.classes > 4
    assert abs(wrong.boxes) < 2.5
    assert wrong.classes is not None
    assert abs(wrong.classes) < 2.5


def test_wrong_classes_of_right_boxes() -> None:
    data = images()
    wrong = measure_agreement(exchange_classes(data), perfect(data))
    assert wrong.boxes == measure_agreement(data, perfect(data)).boxes
    assert wrong.classes is not None
    assert abs(wrong.classes) < 2.5


def test_one_class_and_no_detections_tell_nothing() -> None:
    data = images()
    one = replace(data, records=tuple(replace(record, labels=record.labels * 0) for record in data.records))
    none = {image_id: objects[:0] for image_id, objects in perfect(one).items()}
    assert measure_agreement(one, perfect(one)).classes is None
    assert measure_agreement(one, none)[1:] == (0.0, None)
