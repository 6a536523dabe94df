"""Kinds of errors and their costs: counted by hand from the definitions of TIDE, and equal to hotcoco's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from random_detections import draw_case
from test_coco_metrics import make_data, make_detections, make_record, nothing

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import results_of, run_evaluator
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.error_kinds import KINDS, DetectionErrors, find_errors
from boxwright.evaluation.near_duplicates import count_near_duplicates
from boxwright_runtime.detections import Detections

THEIRS = dict(zip(("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"), KINDS, strict=True))
PLACE = [10, 10, 40, 40]
SHIFTED = [30, 10, 40, 40]
"""IoU 1/3 with the place."""


def one_of_each() -> tuple[DetectionData, dict[int, Detections]]:
    """One error of each kind; class 0 has the objects of images 1, 2 and 7, class 1 those of 3, 4 and 6."""
    labels = {1: [0], 2: [0], 3: [1], 4: [1], 5: [], 6: [1], 7: [0]}
    data = make_data(*[make_record(i, own, [PLACE] * len(own)) for i, own in labels.items()])
    detections = {
        1: make_detections([PLACE, [12, 10, 40, 40]], [0.9, 0.8], [0, 0]),  # a hit, and a duplicate
        2: make_detections([PLACE], [0.7], [1]),  # classification
        3: make_detections([SHIFTED], [0.6], [1]),  # localization
        4: make_detections([SHIFTED], [0.5], [0]),  # both, and the object is missed
        5: make_detections([PLACE], [0.4], [0]),  # background
        6: make_detections([PLACE], [0.95], [1]),
        7: make_detections([PLACE], [0.1], [0]),
    }
    return data, detections


def test_one_error_of_each_kind_and_its_cost() -> None:
    errors = find_errors(*one_of_each())
    assert {kind: costs.num_errors for kind, costs in errors.kinds.items()} == dict.fromkeys(KINDS, 1)
    # COCO's 101 recalls: 34 up to 1/3, 33 up to 2/3, 34 up to 1. Class 0 has hits at 0.9 and 0.1 and three false
    # detections between them, class 1 a hit at 0.95 and false ones at 0.7 and 0.6.
    first, second = 34 + 33 * 2 / 5, 34
    assert [101 * row.AP50 for row in errors.per_class] == pytest.approx([first, second])
    assert pytest.approx((first + second) / 202) == errors.AP50
    gains = {
        # The detection at 0.7 is one of class 0 then: hits at places 1, 3 and 6, and class 1 is as before.
        "classification": 34 + 33 * 2 / 3 + 34 * 3 / 6 - first,
        # Class 1 has hits at places 1 and 3.
        "localization": 33 * 2 / 3,
        # Class 0 without one of the false detections: the second hit is at place 4.
        "both": 33 * (2 / 4 - 2 / 5),
        "duplicate": 33 * (2 / 4 - 2 / 5),
        "background": 33 * (2 / 4 - 2 / 5),
        # Class 1 has two objects, and one of them is hit: up to recall 1/2 are 51.
        "missed": 51 - 34,
    }
    assert {kind: 202 * costs.cost for kind, costs in errors.kinds.items()} == pytest.approx(gains)
    of_first, of_second = (row.kinds for row in errors.per_class)
    assert 101 * of_first["classification"].cost == pytest.approx(gains["classification"])
    assert (of_first["classification"].num_errors, of_second["classification"].num_errors) == (0, 1)
    assert 101 * of_second["missed"].cost == pytest.approx(17)
    assert of_first["missed"] == (0, 0.0)


def test_errors_of_images() -> None:
    errors = find_errors(*one_of_each())
    kinds = {image_id: (one.detections, one.objects, one.missed) for image_id, one in errors.images.items()}
    assert kinds == {
        1: (("hit", "duplicate"), (0, 0), ()),
        2: (("classification",), (0,), ()),
        3: (("localization",), (0,), ()),
        4: (("both",), (-1,), (0,)),
        5: (("background",), (-1,), ()),
        6: (("hit",), (0,), ()),
        7: (("hit",), (0,), ()),
    }
    assert [one.image_id for one in errors.worst_images()] == [4, 1, 2, 3, 5]
    assert [one.image_id for one in errors.worst_images(1)] == [4]


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_hotcoco(seed: int) -> None:
    data, detections = draw_case(seed)
    errors = find_errors(data, detections)
    theirs = run_evaluator(data, results_of(data, detections, "bbox"), "bbox", 100).tide_errors()
    assert {THEIRS[kind]: count for kind, count in theirs["counts"].items()} == counts_of(errors)
    costs = {THEIRS[kind]: max(cost, 0) for kind, cost in theirs["delta_ap"].items() if kind in THEIRS}
    assert {kind: one.cost for kind, one in errors.kinds.items()} == pytest.approx(costs, abs=1e-12)
    assert pytest.approx(errors.AP50, abs=1e-12) == evaluate_detections(data, detections).AP50


@pytest.mark.parametrize("seed", range(4))
def test_numbers_add_up_also_with_crowds(seed: int) -> None:
    data, detections = draw_case(seed, crowds=0.3, num_images=12)
    errors = find_errors(data, detections)
    assert pytest.approx(errors.AP50, abs=1e-12) == evaluate_detections(data, detections).AP50
    for kind in KINDS:
        assert errors.kinds[kind].num_errors == sum(row.kinds[kind].num_errors for row in errors.per_class)
        mean = np.mean([row.kinds[kind].cost for row in errors.per_class])
        assert errors.kinds[kind].cost == pytest.approx(max(mean, 0), abs=1e-12)
        listed = [one for image in errors.images.values() for one in image.detections]
        assert kind == "missed" or listed.count(kind) == errors.kinds[kind].num_errors
    assert "ignored" in listed
    assert sum(len(image.missed) for image in errors.images.values()) == errors.kinds["missed"].num_errors


def test_the_best_of_several_errors_of_an_object_is_corrected() -> None:
    data = make_data(make_record(1, [0], [PLACE]), make_record(2, [0], [PLACE]), ids=(1,))
    detections = {1: make_detections([SHIFTED] * 3, [0.9, 0.8, 0.7], [0] * 3), 2: make_detections([PLACE], [0.1], [0])}
    errors = find_errors(data, detections)
    assert errors.kinds["localization"].num_errors == 3
    assert errors.kinds["localization"].cost == pytest.approx(1 - errors.AP50)
    assert errors.kinds["missed"].num_errors == 0


def test_a_crowd_is_neither_missed_nor_are_detections_in_it_errors() -> None:
    data = make_data(make_record(1, [0, 0], [[0, 0, 100, 100], [150, 150, 40, 40]], [True, False]), ids=(1,))
    beside = [60, 0, 100, 100]  # 0.4 of it lies in the crowd
    errors = find_errors(data, {1: make_detections([PLACE, [200, 10, 20, 20], beside], [0.9, 0.8, 0.7], [0, 0, 0])})
    assert errors.images[1].detections == ("ignored", "background", "background")
    assert errors.images[1].missed == (1,)
    assert errors.per_class[0].num_objects == 1


def test_masks() -> None:
    mask = np.zeros((256, 256), dtype=np.uint8, order="F")
    mask[10:50, 10:50] = 1
    upper, lower = mask.copy(order="F"), mask.copy(order="F")
    upper[30:], lower[:26] = 0, 0  # IoU 0.5 and 0.6
    whole, half, most = (coco_mask.encode(one) for one in (mask, upper, lower))
    data = make_data(make_record(1, [0], [PLACE], segmentations=(whole,)), ids=(1,))
    one = make_detections([PLACE] * 2, [0.9, 0.8], [0, 0])
    one.masks = (most, half)
    assert find_errors(data, {1: one}, iou_type="segm").images[1].detections == ("hit", "localization")
    assert find_errors(data, {1: one}).images[1].detections == ("hit", "duplicate")


def counts_of(errors: DetectionErrors) -> dict[str, int]:
    return {kind: one.num_errors for kind, one in errors.kinds.items()}


@pytest.mark.parametrize("with_objects", [True, False])
def test_nothing_detected(with_objects: bool) -> None:
    data = make_data(make_record(1, [0, 1] if with_objects else [], [PLACE, PLACE] if with_objects else []))
    for detections in ({}, {1: nothing()}):
        errors = find_errors(data, detections)
        assert counts_of(errors) == {**dict.fromkeys(KINDS, 0), "missed": 2 if with_objects else 0}
        assert (0 if with_objects else -1) == errors.AP50
        assert [row.kinds["missed"].cost for row in errors.per_class] == ([1, 1] if with_objects else [0, 0])


def test_a_class_without_objects_costs_nothing_of_its_own() -> None:
    data = make_data(make_record(1, [0], [PLACE]))
    errors = find_errors(data, {1: make_detections([PLACE, [100, 100, 9, 9]], [0.9, 0.8], [1, 1])})
    assert [row.AP50 for row in errors.per_class] == [0, -1]
    assert errors.per_class[1].kinds["background"] == (1, 0.0)
    assert errors.kinds["classification"] == (1, 1.0)
    json.dumps(errors.to_json(), allow_nan=False)


def test_near_duplicates_are_pairs_of_one_class_with_scores() -> None:
    boxes = [PLACE, [11, 10, 40, 40], [12, 10, 40, 40], PLACE, PLACE]
    one = make_detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.2], [0, 0, 0, 1, 0])
    assert count_near_duplicates({1: one, 2: one[:1]}, 3).tolist() == [3, 0, 0]
    assert count_near_duplicates({1: one}, 3, score_threshold=0.1).tolist() == [6, 0, 0]
    assert count_near_duplicates({1: one}, 3, iou_threshold=0.94).tolist() == [2, 0, 0]
    errors = find_errors(make_data(make_record(1, [0], [PLACE])), {1: one})
    assert (errors.near_duplicates, [row.near_duplicates for row in errors.per_class]) == (3, [3, 0])
