"""Confusion of classes and slices: equal to hotcoco's, and counted by hand where those differ on purpose."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from random_detections import draw_case
from test_coco_metrics import make_data, make_detections, make_record

from boxwright.evaluation.coco_evaluator import results_of, run_evaluator
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.confusion import count_confusion
from boxwright.evaluation.evaluate import measure_detections
from boxwright.evaluation.operating_points import above_thresholds
from boxwright.evaluation.slices import slice_metrics

PLACE = [10, 10, 40, 40]


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_hotcoco(seed: int) -> None:
    data, detections = draw_case(seed, num_images=12)
    del detections[3]
    evaluator = run_evaluator(data, results_of(data, detections, "bbox"), "bbox", 100)
    for threshold in (0.0, 0.5):
        ours = count_confusion(data, detections, thresholds=threshold)
        theirs = evaluator.confusion_matrix(iou_thr=0.5, max_det=1000, min_score=threshold)
        np.testing.assert_array_equal(ours.counts, theirs["matrix"])


def test_each_class_has_its_threshold() -> None:
    data, detections = draw_case(1, num_images=12)
    least = (0.2, 0.5, 0.8)
    ours = count_confusion(data, detections, thresholds=least)
    selected = above_thresholds(detections, least)
    assert 0 < sum(map(len, selected.values())) < sum(map(len, detections.values()))
    np.testing.assert_array_equal(ours.counts, count_confusion(data, selected, thresholds=0.0).counts)
    assert ours.thresholds == least


def test_counted_by_hand() -> None:
    crowd = [100, 100, 100, 100]
    data = make_data(
        make_record(1, [0, 1, 1, 0], [PLACE, [60, 10, 20, 20], crowd, [10, 60, 20, 20]], [False] * 2 + [True, False])
    )
    boxes = [PLACE, PLACE, [60, 10, 20, 20], [120, 120, 20, 20], [80, 60, 15, 15]]
    confusion = count_confusion(data, {1: make_detections(boxes, [0.9, 0.8, 0.7, 0.7, 0.6], [1, 0, 1, 0, 0])})
    # The best detection takes its object whatever its class is, so that the right one of the class is of none.
    assert confusion.counts.tolist() == [[0, 1, 1], [0, 1, 0], [2, 0, 0]]
    assert confusion.most_confused() == [("class 1", "class 2", 1)]
    json.dumps(confusion.to_json())


def test_slices_by_size_are_cocos() -> None:
    data, detections = draw_case(2, num_images=20)
    metrics = evaluate_detections(data, detections)
    sizes = [one for one in slice_metrics(data, detections) if one.kind == "size"]
    assert [one.name for one in sizes] == ["small", "medium", "large"]
    assert [one.AP for one in sizes] == [metrics.APs, metrics.APm, metrics.APl]
    assert [one.AR for one in sizes] == [metrics.ARs, metrics.ARm, metrics.ARl]
    assert sum(one.num_objects for one in sizes) == sum(row.num_objects for row in metrics.per_class)


def test_slices_by_density_are_metrics_of_their_images() -> None:
    data, detections = draw_case(4, num_images=20, objects=9)
    data = replace(data, records=data.records[::-1])  # not in the order of their ids
    slices = [one for one in slice_metrics(data, detections) if one.kind == "density"]
    assert [one.name for one in slices] == ["no objects", "2 to 5 objects", "6 to 20 objects"]
    assert sum(one.num_images for one in slices) == 20
    assert (slices[0].num_objects, slices[0].AP) == (0, -1)
    some = make_data(*[one for one in data.records if 2 <= len(one.labels) <= 5], ids=(1, 2, 3))
    own = {one.image_id: detections[one.image_id] for one in some.records}
    expected = evaluate_detections(some, own)
    numbers = (slices[1].AP, slices[1].AP50, slices[1].AR)
    assert numbers == pytest.approx((expected.AP, expected.AP50, expected.AR100), abs=1e-12)
    assert slices[1].num_objects == sum(len(one.labels) for one in some.records)


def test_slices_count_as_many_detections_as_are_asked_for() -> None:
    data = make_data(make_record(1, [0], [PLACE]), ids=(1,))
    boxes = [[200, 200, 5, 5]] * 150 + [PLACE]
    detections = {1: make_detections(boxes, np.linspace(0.9, 0.1, 151), [0] * 151)}
    recalls = [
        [one.AR for one in slice_metrics(data, detections, max_detections=most) if one.num_objects]
        for most in (100, 300)
    ]
    assert recalls == [[0, 0], [1, 1]]


def test_an_evaluation_answers_all_at_once() -> None:
    evaluation = measure_detections(*draw_case(5, num_images=20))
    assert evaluation.errors is evaluation.errors
    assert abs(evaluation.errors.AP50 - evaluation.boxes.AP50) < 1e-12
    assert evaluation.confusion.thresholds == tuple(one.threshold for one in evaluation.thresholds)
    right = sum(one.true_positives for one in evaluation.thresholds)
    assert 0 < np.trace(evaluation.confusion.counts[:-1, :-1]) <= right
    assert 0 < evaluation.calibration.error < 1
    assert [one.kind for one in evaluation.slices[:4]] == ["size"] * 3 + ["density"]
