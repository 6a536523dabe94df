"""Operating points counted by hand: ties, classes without objects, targets that are out of reach."""

from __future__ import annotations

import json

import numpy as np
import pytest
from random_detections import draw_case
from test_coco_metrics import make_data, make_detections, make_record, nothing

from boxwright.evaluation.matched_detections import MatchedDetections, match_detections
from boxwright.evaluation.operating_points import (
    above_thresholds,
    count_at,
    find_operating_points,
    mean_f1,
    thresholds_of,
    trace_f1,
)
from boxwright.evaluation.threshold_target import Target

NAMES = ["cat", "dog", "cow"]
PLACES = [[20 * i, 10, 10, 10] for i in range(12)]


def case(scores: list[float], right: list[bool], num_objects: int) -> MatchedDetections:
    """Objects of one class, of which the right detections are, one after the other; the others are elsewhere."""
    positions = iter(PLACES)
    boxes = [next(positions) if one else [20 * i, 100, 10, 10] for i, one in enumerate(right)]
    data = make_data(make_record(1, [0] * num_objects, PLACES[:num_objects]), ids=(1,))
    return match_detections(data, {1: make_detections(boxes, scores, [0] * len(scores))})


def find(matched: MatchedDetections, target: str) -> tuple[float, int, int, int, str]:
    (point,) = find_operating_points(matched, ["cat"], Target.parse(target))
    return point.threshold, point.true_positives, point.false_positives, point.missed, point.note


def test_targets_on_a_curve_that_is_counted_by_hand() -> None:
    # precision 1, 1, 2/3, 3/4, 3/5, 4/6 ...; recall in tenths; F1 2/11, 4/12, 4/13, 6/14, 6/15, 8/16
    matched = case([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, True, False, True, False, True], 10)
    assert find(matched, "f1") == (pytest.approx(0.4), 4, 2, 6, "")
    assert find(matched, "precision=0.7") == (0.55, 3, 1, 7, "")
    assert find(matched, "precision=1") == (0.75, 2, 0, 8, "")
    assert find(matched, "recall=0.3") == (0.55, 3, 1, 7, "")
    assert find(matched, "recall=0.15") == (0.75, 2, 0, 8, "")
    assert find(matched, "recall=0.5") == (pytest.approx(0.4), 4, 2, 6, "the highest recall is 0.400")
    (point,) = find_operating_points(matched, ["cat"])
    assert (point.precision, point.recall, point.f1) == pytest.approx((4 / 6, 0.4, 0.5))
    json.dumps(point.to_json(), allow_nan=False)


def test_a_precision_that_is_out_of_reach_is_said() -> None:
    matched = case([0.9, 0.8, 0.7, 0.6], [False, True, False, True], 10)
    assert find(matched, "precision=0.6") == (pytest.approx(0.6), 2, 2, 8, "the highest precision is 0.500")


def test_detections_of_one_score_are_above_a_threshold_together() -> None:
    matched = case([0.9, 0.5, 0.5, 0.5, 0.2], [True, True, False, False, False], 10)
    assert find(matched, "precision=0.6") == (0.7, 1, 0, 9, "")
    assert find(matched, "recall=0.2") == (0.35, 2, 2, 8, "")


def test_of_equal_f1_the_highest_threshold_is_taken() -> None:
    # F1 after 1, 3 and 5 detections: 2/11, 4/13, 6/15; after one of 5 objects and 4 of 10: equal.
    matched = case([0.9, 0.8, 0.7], [True, False, False], 10)
    assert find(matched, "f1")[0] == 0.85
    matched = case([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [True, False, False, False, False, True], 4)
    assert find(matched, "f1")[:2] == (0.85, 1)  # 2/5 and 4/10


def test_a_threshold_has_few_digits_and_separates() -> None:
    matched = case([0.9, 0.30001, 0.30002, 0.29], [True, True, False, False], 10)
    threshold, right, wrong, _, _ = find(matched, "precision=0.6")
    assert (threshold, right, wrong) == (0.3, 2, 1)
    scores = np.array([0.123456789, 0.12345678], dtype=np.float32)
    assert scores[0] > scores[1]
    matched = case(scores.tolist(), [True, False], 10)
    threshold = find(matched, "f1")[0]
    assert (scores >= np.float32(threshold)).tolist() == [True, False]


def test_classes_that_nothing_is_known_of() -> None:
    data = make_data(make_record(1, [0, 1], PLACES[:2]), ids=(1, 2, 3))
    points = find_operating_points(
        match_detections(data, {1: make_detections([PLACES[0], PLACES[5]], [0.9, 0.8], [0, 2])}), NAMES
    )
    assert [one.threshold for one in points] == [pytest.approx(0.9), 0.5, 0.5]
    assert [one.note for one in points] == [
        "1 objects are few",
        "none of 1 objects is detected: 0.5 is a guess",
        "no objects: 0.5 is a guess",
    ]
    assert [(one.true_positives, one.false_positives, one.missed) for one in points] == [
        (1, 0, 0),
        (0, 0, 1),
        (0, 1, 0),
    ]
    assert mean_f1(points) == 0.5
    empty = find_operating_points(match_detections(data, {1: nothing()}), NAMES)
    assert [one.threshold for one in empty] == [0.5] * 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("text", ["f1", "precision=0.5", "recall=0.4"])
def test_counts_are_those_of_detections_above_the_thresholds(seed: int, text: str) -> None:
    data, detections = draw_case(seed, num_images=30, crowds=0.1)
    matched = match_detections(data, detections)
    points = find_operating_points(matched, NAMES, Target.parse(text))
    least = thresholds_of(points)
    counted = count_at(match_detections(data, above_thresholds(detections, least)), NAMES, 0.0)
    for point, again, own in zip(points, counted, count_at(matched, NAMES, least), strict=True):
        expected = (point.true_positives, point.false_positives, point.missed)
        assert (again.true_positives, again.false_positives, again.missed) == expected
        assert (own.true_positives, own.false_positives, own.missed) == expected


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_has_a_better_f1(seed: int) -> None:
    data, detections = draw_case(seed, num_images=20)
    matched = match_detections(data, detections)
    points = find_operating_points(matched, NAMES)
    for threshold in np.unique(matched.scores):
        for point, other in zip(points, count_at(matched, NAMES, float(threshold)), strict=True):
            assert other.f1 <= point.f1 + 1e-12


@pytest.mark.parametrize(
    "text", ["", "f2", "precision", "precision=", "precision=0", "recall=1.1", "recall=nan", "AP=0.5"]
)
def test_other_targets_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="target is f1, precision=P or recall=R"):
        Target.parse(text)


def test_a_target_is_written_as_it_is_read() -> None:
    for text in ("f1", "precision=0.9", "recall=1"):
        assert str(Target.parse(text)) == text


def test_traces_are_the_counts_at_each_threshold() -> None:
    data, detections = draw_case(seed=3)
    matched, names = match_detections(data, detections), [one.name for one in data.categories]
    thresholds = np.linspace(0, 1, 11)
    traces = trace_f1(matched, len(names), thresholds)
    for index, threshold in enumerate(thresholds.tolist()):
        points = count_at(matched, names, threshold)
        assert traces[:, index] == pytest.approx([one.f1 if one.true_positives + one.missed else 0.0 for one in points])
    assert traces.max() > 0.3
