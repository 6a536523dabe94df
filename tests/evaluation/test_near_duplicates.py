"""Objects that were detected twice: the better detection of a class stays."""

from __future__ import annotations

import numpy as np

from boxwright.evaluation.near_duplicates import drop_near_duplicates
from boxwright_runtime.detections import Detections


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)
    )


def test_the_better_one_of_a_class_stays() -> None:
    """Side by side by 10 of 100 pixels: an IoU of 90 / 110; by 20: of 80 / 120, which is below the limit."""
    boxes = [[0, 0, 100, 50], [10, 0, 110, 50], [20, 0, 120, 50], [0, 0, 100, 50]]
    once = drop_near_duplicates(detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1]))
    # The second is repeated; the third overlaps it, but not one that stays.
    assert np.asarray(once.scores).tolist() == [np.float32(0.9), np.float32(0.7), np.float32(0.6)]
    assert np.asarray(once.labels).tolist() == [0, 0, 1]
    all_of_them = drop_near_duplicates(detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 1]), iou_threshold=0.9)
    assert len(all_of_them) == 4


def test_the_order_does_not_matter() -> None:
    once = drop_near_duplicates(detections([[0, 0, 9, 9], [0, 0, 9, 10]], [0.3, 0.4], [2, 2]))
    assert np.asarray(once.scores).tolist() == [np.float32(0.4)]


def test_none_and_one() -> None:
    assert len(drop_near_duplicates(detections([], [], []))) == 0
    assert len(drop_near_duplicates(detections([[0, 0, 1, 1]], [0.5], [0]))) == 1
