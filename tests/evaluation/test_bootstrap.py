"""Metrics of samples of images: those of a data set in which images stand as often as they were drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from random_detections import draw_case

from boxwright.data.records import DetectionData
from boxwright.evaluation.bootstrap import draw_samples, measure_samples
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.matched_detections import AREAS, IOU_THRESHOLDS, MatchedDetections, match_detections
from boxwright_runtime.detections import Detections

Case = tuple[DetectionData, dict[int, Detections]]


def match(case: Case) -> MatchedDetections:
    return match_detections(*case, iou_thresholds=IOU_THRESHOLDS, num_areas=len(AREAS))


def copy_images(case: Case, counts: np.ndarray) -> Case:
    """Images as often as they were drawn; copies stand beside each other, whose detections have equal scores."""
    data, detections = case
    records, copies = [], {}
    for record, count in zip(data.records, counts.tolist(), strict=True):
        for number in range(count):
            image_id = 1000 * record.image_id + number
            records.append(replace(record, image_id=image_id))
            copies[image_id] = detections[record.image_id]
    return replace(data, records=tuple(records)), copies


def numbers_of(case: Case) -> tuple[list[float], list[float]]:
    metrics = evaluate_detections(*case)
    return list(metrics.numbers().values()), [row.AP for row in metrics.per_class]


@pytest.mark.parametrize("seed", range(4))
def test_samples_are_data_sets_with_copies(seed: int) -> None:
    case = draw_case(seed, num_images=9, crowds=0.2, objects=7)
    samples = np.concatenate([np.ones((1, 9), dtype=np.int64), draw_samples(9, 8, seed), np.eye(9, dtype=np.int64)[:2]])
    measured = measure_samples(match(case), samples, 3)
    for counts, numbers, classes in zip(samples, measured.numbers, measured.per_class, strict=True):
        expected = numbers_of(copy_images(case, counts))
        for values, theirs in zip((numbers, classes), expected, strict=True):
            np.testing.assert_allclose(np.nan_to_num(values, nan=-1.0), theirs, rtol=0, atol=1e-12)


def test_images_are_drawn_with_replacement() -> None:
    samples = draw_samples(50, 4000, 3)
    assert (samples.sum(1) == 50).all()
    # Each image is left out of (1 - 1/50)^50 = 0.364 of the samples, and is there twice in 0.186 of them.
    assert (samples == 0).mean() == pytest.approx(0.364, abs=0.005)
    assert (samples == 2).mean() == pytest.approx(0.186, abs=0.005)
    np.testing.assert_array_equal(samples, draw_samples(50, 4000, 3))
    assert (draw_samples(50, 10, 4) != samples[:10]).any()
