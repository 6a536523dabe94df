"""Calibration: equal to hotcoco's, and scalings that are known are fitted."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from random_detections import draw_case
from scipy.special import expit, logit
from test_coco_metrics import make_data, make_detections, make_record

from boxwright.evaluation.coco_evaluator import results_of, run_evaluator
from boxwright.evaluation.matched_detections import MatchedDetections, match_detections
from boxwright.evaluation.score_calibration import ScoreScaling, calibrate, fit_scaling
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections


@pytest.mark.parametrize("seed", range(5))
def test_equal_to_hotcoco(seed: int) -> None:
    data, detections = draw_case(seed, num_images=20, crowds=0.1)
    theirs = run_evaluator(data, results_of(data, detections, "bbox"), "bbox", 100).calibration()
    ours = calibrate(match_detections(data, detections), 3)
    assert ours.error == pytest.approx(theirs["ece"], abs=1e-12)
    assert ours.num_detections == theirs["num_detections"]
    own = [theirs["per_category"][one.name] for one in data.categories]
    assert ours.per_class == pytest.approx(own, abs=1e-12)
    for one, other in zip(ours.bins, theirs["bins"], strict=True):
        assert (one.lower, one.upper, one.num_detections) == (other["bin_lower"], other["bin_upper"], other["count"])
        assert (one.mean_score, one.precision) == pytest.approx((other["avg_confidence"], other["avg_accuracy"]))
    json.dumps(ours.to_json(), allow_nan=False)


def test_counted_by_hand() -> None:
    data = make_data(make_record(1, [0, 0], [[0, 0, 20, 20], [50, 50, 20, 20]]), ids=(1,))
    boxes = [[0, 0, 20, 20], [50, 50, 20, 20], [100, 100, 20, 20]]
    matched = match_detections(data, {1: make_detections(boxes, [1.0, 0.75, 0.75], [0, 0, 0])})
    result = calibrate(matched, 1)
    assert result.bins[7].precision == 0.5
    assert result.bins[9].num_detections == 1
    assert result.error == pytest.approx(2 / 3 * 0.25)


def drawn(
    temperatures: tuple[float, ...], per_class: int, *, shifts: tuple[float, ...] = (0.0,) * 3, seed: int = 0
) -> MatchedDetections:
    """Detections that are right as often as their scores say once they are scaled."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(temperatures)), per_class)
    scores = expit(rng.normal(-1, 2, len(labels)))
    hits = rng.random(len(labels)) < expit(logit(scores) / np.array(temperatures)[labels] + np.array(shifts)[labels])
    count = np.zeros(len(labels), dtype=np.int64)
    return MatchedDetections(
        image_ids=(1,),
        images=count,
        positions=np.arange(len(labels)),
        labels=labels,
        scores=scores,
        ranks=count,
        objects=count - 1,
        hits=hits[None, None],
        ignored=np.zeros((1, 1, len(labels)), dtype=np.bool_),
        object_images=count[:0],
        object_labels=count[:0],
        counted=np.zeros((1, 0), dtype=np.bool_),
    )


def test_known_scalings_are_fitted_and_calibrate_other_detections() -> None:
    temperatures, shifts = (0.5, 1.0, 3.0), (0.0, -1.0, 0.5)
    fitted = fit_scaling(drawn(temperatures, 20_000, shifts=shifts), 3)
    assert fitted.temperatures == pytest.approx(temperatures, rel=0.06)
    assert fitted.shifts == pytest.approx(shifts, abs=0.06)
    other = drawn(temperatures, 20_000, shifts=shifts, seed=1)
    before, after = calibrate(other, 3), calibrate(other.with_scores(fitted.apply(other.scores, other.labels)), 3)
    assert after.error < before.error / 5
    assert after.error < 0.01


def test_a_class_with_few_detections_is_scaled_as_all_are() -> None:
    many, few = drawn((3.0,), 5000), drawn((0.5, 0.5), 5)
    names = ("images", "positions", "labels", "scores", "ranks", "objects", "hits", "ignored")
    columns = {
        name: np.concatenate([getattr(many, name), getattr(few, name)[..., 5:]], getattr(many, name).ndim - 1)
        for name in names
    }
    first, second, third = fit_scaling(replace(many, **columns), 3).temperatures
    assert second == third != first
    assert second == pytest.approx(first, rel=0.05)
    assert fit_scaling(drawn((1.0,), 5), 1) == ((1.0,), (0.0,))


def test_detections_that_are_all_far_from_doubt_do_not_lead_to_extremes() -> None:
    """Ten right ones above all wrong ones: without Platt's targets the slope would have no end."""
    matched = drawn((1.0,), 60)
    order = np.argsort(-matched.scores)
    hits = np.zeros_like(matched.hits)
    hits[..., order[:12]] = True
    fitted = fit_scaling(replace(matched, hits=hits), 1)
    scaled = np.sort(fitted.apply(matched.scores, matched.labels))
    assert scaled[-1] == pytest.approx(13 / 14, abs=0.06)
    assert scaled[0] == pytest.approx(1 / 50, abs=0.03)


def test_scaling_keeps_the_order_of_a_class() -> None:
    scores = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    labels = np.zeros(5, dtype=np.int64)
    softened = ScoreScaling((2.0,), (0.0,)).apply(scores, labels)
    assert (np.diff(softened) > 0).all()
    assert softened[2] == 0.5
    np.testing.assert_allclose(softened[[1, 3]], expit(logit(scores[[1, 3]]) / 2))
    other = ScoreScaling((1.0, 1e3), (0.0, 1.0)).apply(scores, np.array([0, 1, 0, 1, 0]))
    assert other[3] == pytest.approx(expit(1), abs=1e-2)


@pytest.mark.parametrize("as_tensors", [True, False])
def test_detections_are_calibrated_likewise(as_tensors: bool) -> None:
    one = make_detections([[0, 0, 9, 9]] * 4, [1.0, 0.7, 0.4, 0.0], [0, 1, 0, 1])
    if not as_tensors:
        one = Detections(one.boxes.numpy(), one.scores.numpy(), one.labels.numpy())
    scaling = ScoreScaling((0.5, 2.0), (0.1, -1.0))
    scaled = one.calibrated(*scaling)
    assert scaled.scores.dtype == one.scores.dtype
    expected = scaling.apply(to_numpy(one.scores).astype(np.float64), to_numpy(one.labels))
    np.testing.assert_allclose(to_numpy(scaled.scores), expected, rtol=1e-5)
    assert scaled.boxes is one.boxes
