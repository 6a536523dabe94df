"""Thresholds and scales are tested on images that they were not tuned on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_detections import draw_case

from boxwright.evaluation.held_out import count_held_out, draw_halves
from boxwright.evaluation.matched_detections import MatchedDetections, match_detections
from boxwright.evaluation.operating_points import count_at, find_operating_points, thresholds_of
from boxwright.evaluation.score_calibration import calibrate, fit_scaling
from boxwright.evaluation.threshold_target import Target

NAMES = ["cat", "dog", "cow"]


@pytest.fixture
def matched() -> MatchedDetections:
    return match_detections(*draw_case(0, num_images=60, crowds=0.1))


def counts(points: object) -> list[tuple[int, int, int]]:
    assert isinstance(points, tuple)
    return [(one.true_positives, one.false_positives, one.missed) for one in points]


def test_some_images_are_as_if_there_were_no_others(matched: MatchedDetections) -> None:
    data, detections = draw_case(0, num_images=60, crowds=0.1)
    numbers = np.arange(0, 60, 3)
    few = replace(data, records=tuple(data.records[number] for number in numbers))
    alone = match_detections(few, {one.image_id: detections[one.image_id] for one in few.records})
    some = matched.of_images(numbers)
    assert [some.image_ids[number] for number in some.images] == [alone.image_ids[number] for number in alone.images]
    for name in ("positions", "labels", "scores", "ranks", "objects", "hits", "ignored", "object_labels", "counted"):
        np.testing.assert_array_equal(getattr(some, name), getattr(alone, name), err_msg=name)


def test_each_half_is_counted_with_the_thresholds_of_the_other(matched: MatchedDetections) -> None:
    held_out = count_held_out(matched, NAMES, Target())
    first, second = draw_halves(60, 0)
    assert sorted([*first, *second]) == list(range(60))
    expected = np.zeros((3, 3), dtype=int)
    for own, other in ((first, second), (second, first)):
        thresholds = thresholds_of(find_operating_points(matched.of_images(own), NAMES))
        expected += np.array(counts(count_at(matched.of_images(other), NAMES, thresholds)))
    assert counts(held_out.tuned) == [tuple(row) for row in expected.tolist()]
    assert counts(held_out.untuned) == counts(count_at(matched, NAMES, 0.5))


def test_scores_are_scaled_as_fitted_on_the_other_half(matched: MatchedDetections) -> None:
    held_out = count_held_out(matched, NAMES, Target())
    scores = matched.scores.copy()
    for own, other in (draw_halves(60, 0), draw_halves(60, 0)[::-1]):
        rows = np.isin(matched.images, other)
        scores[rows] = fit_scaling(matched.of_images(own), 3).apply(scores[rows], matched.labels[rows])
    assert held_out.error_before == calibrate(matched, 3).error
    assert held_out.error_after == calibrate(matched.with_scores(scores), 3).error
    # The scores are random and say nothing: their error is large, and nearly gone once they are scaled.
    assert held_out.error_after < held_out.error_before / 2


def test_halves_are_drawn_by_a_seed() -> None:
    assert [len(half) for half in draw_halves(7, 0)] == [3, 4]
    np.testing.assert_array_equal(draw_halves(20, 1)[0], draw_halves(20, 1)[0])
    assert draw_halves(20, 1)[0].tolist() != draw_halves(20, 2)[0].tolist()
    with pytest.raises(ValueError, match="1 image is no data to tune on and to test on: at least 2"):
        draw_halves(1, 0)
