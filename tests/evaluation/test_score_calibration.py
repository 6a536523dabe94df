"""Calibration: equal to hotcoco's, and temperatures that are known are found again."""

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
from boxwright.evaluation.score_calibration import apply_temperatures, calibrate, fit_temperatures


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


def drawn(temperatures: tuple[float, ...], per_class: int, seed: int = 0) -> MatchedDetections:
    """Detections that are right as often as their scores say once they are divided by the temperatures."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(temperatures)), per_class)
    scores = expit(rng.normal(-1, 2, len(labels)))
    hits = rng.random(len(labels)) < expit(logit(scores) / np.array(temperatures)[labels])
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


def test_known_temperatures_are_found_and_calibrate_other_detections() -> None:
    true = (0.5, 1.0, 3.0)
    fitted = fit_temperatures(drawn(true, 20_000), 3)
    assert fitted == pytest.approx(true, rel=0.06)
    other = drawn(true, 20_000, seed=1)
    before, after = calibrate(other, 3), calibrate(other, 3, fitted)
    assert after.error < before.error / 5
    assert after.error < 0.01


def test_a_class_with_few_detections_has_the_temperature_of_all() -> None:
    many, few = drawn((3.0,), 5000), drawn((0.5, 0.5), 5)
    names = ("images", "positions", "labels", "scores", "ranks", "objects", "hits", "ignored")
    columns = {
        name: np.concatenate([getattr(many, name), getattr(few, name)[..., 5:]], getattr(many, name).ndim - 1)
        for name in names
    }
    joined = replace(many, **columns)
    first, second, third = fit_temperatures(joined, 3)
    assert second == third != first
    assert second == pytest.approx(first, rel=0.05)
    assert fit_temperatures(drawn((1.0,), 5), 1) == (1.0,)


def test_temperatures_keep_the_order_and_the_middle() -> None:
    scores = np.array([0.0, 0.2, 0.5, 0.9, 1.0])
    labels = np.zeros(5, dtype=np.int64)
    softened = apply_temperatures(scores, labels, (2.0,))
    assert (np.diff(softened) > 0).all()
    assert softened[2] == 0.5
    np.testing.assert_allclose(softened[[1, 3]], expit(logit(scores[[1, 3]]) / 2))
    assert apply_temperatures(scores, np.array([0, 1, 0, 1, 0]), (1.0, 1e3))[3] == pytest.approx(0.5, abs=1e-2)
