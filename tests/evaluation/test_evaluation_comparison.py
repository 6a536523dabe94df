"""Two evaluations compared: intervals equal a plain computation, objects are counted by who detects them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_detections import draw_case
from test_bootstrap import Case, copy_images, numbers_of
from test_coco_metrics import make_data, make_detections, make_record

from boxwright.evaluation.bootstrap import draw_samples
from boxwright.evaluation.coco_evaluator import IoUType
from boxwright.evaluation.comparison import EvaluationComparison, compare_evaluations
from boxwright.evaluation.evaluate import Evaluation, measure_detections
from boxwright_runtime.detections import Detections


def compare_two(
    first: Evaluation, second: Evaluation, *, iou_type: IoUType = "bbox", num_samples: int = 100, seed: int = 0
) -> EvaluationComparison:
    (comparison,) = compare_evaluations(first, [second], iou_type=iou_type, num_samples=num_samples, seed=seed)
    return comparison


PLACES = [[30 * i, 10, 20, 20] for i in range(8)]


def cases(num_images: int = 12) -> tuple[Case, Case]:
    """Two sets of detections on the same data."""
    data, first = draw_case(0, num_images=num_images, crowds=0.1)
    rng = np.random.default_rng(9)
    second = {image_id: one[np.flatnonzero(rng.random(len(one)) < 0.7)] for image_id, one in first.items()}
    return (data, first), (data, second)


def test_intervals_are_those_of_a_plain_loop() -> None:
    """Each sample is made image by image, and measured as a data set of its own."""
    first, second = cases()
    comparison = compare_two(measure_detections(*first), measure_detections(*second), num_samples=100, seed=5)
    numbers, classes = [], []
    for counts in draw_samples(12, 100, 5):
        pairs = [numbers_of(copy_images(case, counts)) for case in (first, second)]
        for rows, index in ((numbers, 0), (classes, 1)):
            values = np.array([pair[index] for pair in pairs])
            rows.append(np.where((values < 0).any(0), np.nan, values[1] - values[0]))
    for differences, rows in ((comparison.numbers, numbers), (comparison.per_class, classes)):
        known = [one for one in differences if one.lower is not None]
        assert len(known) >= 3
        for index, one in enumerate(differences):
            if one.lower is not None:
                expected = np.nanquantile(np.stack(rows)[:, index], [0.025, 0.975])
                assert (one.lower, one.upper) == pytest.approx(expected, abs=1e-12), one.name
    json.dumps(comparison.to_json(), allow_nan=False)


def test_differences_are_those_of_the_numbers() -> None:
    first, second = (measure_detections(*case) for case in cases())
    comparison = compare_two(first, second, num_samples=100)
    assert [one.name for one in comparison.numbers] == list(first.boxes.numbers())
    assert comparison.numbers[0].value == second.boxes.AP - first.boxes.AP
    assert comparison.numbers[5].value is None  # no object is large
    assert (comparison.numbers[5].lower, comparison.numbers[5].is_clear) == (None, False)
    assert [one.first for one in comparison.per_class] == [row.AP for row in first.boxes.per_class]
    turned = compare_two(second, first, num_samples=100)
    for one, other in zip(comparison.numbers, turned.numbers, strict=True):
        if one.lower is not None and one.upper is not None:
            assert (other.lower, other.upper) == pytest.approx((-one.upper, -one.lower), abs=1e-12)


def test_one_and_the_same_have_no_difference() -> None:
    one = measure_detections(*cases()[0])
    comparison = compare_two(one, one, num_samples=100)
    assert {(row.value, row.lower, row.upper) for row in comparison.numbers if row.value is not None} == {(0, 0, 0)}
    assert not any(row.is_clear for row in comparison.numbers)
    assert (comparison.objects.only_first, comparison.objects.only_second, comparison.objects.images) == (0, 0, ())


def test_each_of_several_is_compared_with_the_first() -> None:
    first, second = (measure_detections(*case) for case in cases())
    alone = [compare_two(first, one).to_json() for one in (second, first)]
    together = compare_evaluations(first, [second, first], num_samples=100)
    assert [one.to_json() for one in together] == alone
    assert alone[0] != alone[1]


def on_places(*per_image: list[int]) -> dict[int, Detections]:
    """Detections of one class on some of the places of each image."""
    return {
        image_id: make_detections([PLACES[i] for i in which], [0.9] * len(which), [0] * len(which))
        for image_id, which in enumerate(per_image, 1)
    }


def compare_places(first: dict[int, Detections], second: dict[int, Detections]) -> EvaluationComparison:
    crowd = [False] * 3 + [True]
    data = make_data(*[make_record(i, [0] * 4, PLACES[:4], crowd) for i in (1, 2, 3)], ids=(1,))
    return compare_two(measure_detections(data, first), measure_detections(data, second), num_samples=100)


def test_objects_by_who_detects_them() -> None:
    objects = compare_places(on_places([0, 1], [0], [0, 1, 2]), on_places([1, 2], [], [0, 1, 2])).objects
    assert (objects.both, objects.only_first, objects.only_second, objects.neither) == (4, 2, 1, 2)
    assert objects.images == ((1, (0,), (2,)), (2, (0,), ()))


def test_a_clear_difference() -> None:
    comparison = compare_places(on_places([0], [0], [0]), on_places([0, 1], [0, 1], [0, 1]))
    assert comparison.numbers[0].is_clear
    assert comparison.numbers[0].lower == pytest.approx(comparison.numbers[0].value)


def test_classes_in_another_order_are_the_same_classes() -> None:
    first, second = (measure_detections(*case) for case in cases())
    order = [2, 0, 1]
    labels = torch.tensor([order.index(label) for label in range(3)])
    data = first.data
    other = replace(
        data,
        categories=tuple(data.categories[label] for label in order),
        records=tuple(replace(one, labels=labels.numpy()[one.labels]) for one in data.records),
    )
    detections = {i: replace(one, labels=labels[one.labels]) for i, one in second.detections.items()}
    turned = measure_detections(other, detections)
    expected, ours = (compare_two(first, one, num_samples=100).to_json() for one in (second, turned))
    assert ours == expected


def renamed(evaluation: Evaluation) -> Evaluation:
    data = evaluation.data
    categories = (*data.categories[:2], replace(data.categories[2], name="boat"))
    return replace(evaluation, data=replace(data, categories=categories))


def test_other_images_objects_and_classes_are_refused() -> None:
    one = measure_detections(*cases()[0])
    few = measure_detections(*draw_case(0, num_images=11, crowds=0.1))
    records = list(one.data.records)
    records[0] = replace(records[0], bbox_xywh=records[0].bbox_xywh + 1)
    moved = measure_detections(replace(one.data, records=tuple(records)), one.detections)
    for other, message in ((few, "other images"), (moved, "other objects in image 1"), (renamed(one), "other classes")):
        with pytest.raises(ValueError, match=message):
            compare_two(one, other)
    with pytest.raises(ValueError, match="need 100 samples or more, not 99"):
        compare_two(one, one, num_samples=99)
    with pytest.raises(ValueError, match="masks are compared where both have them"):
        compare_two(one, one, iou_type="segm")
