"""Random ground truth with detections of all kinds of errors."""

from __future__ import annotations

import numpy as np
from test_coco_metrics import make_data, make_detections, make_record

from boxwright.data.records import DetectionData
from boxwright_runtime.detections import Detections


def draw_case(
    seed: int, *, num_images: int = 6, crowds: float = 0.0, objects: int = 5
) -> tuple[DetectionData, dict[int, Detections]]:
    """Images with objects of three classes, all of which occur, and detections that are moved, doubled or relabelled.

    Args:
        seed: of all numbers.
        num_images: with ids from 1.
        crowds: fraction of objects that are crowds.
        objects: fewer than so many are in an image.
    """
    rng = np.random.default_rng(seed)
    records, detections = [make_record(1, [0, 1, 2], [[5, 5, 30, 30], [50, 50, 40, 20], [9, 70, 25, 25]])], {}
    for image_id in range(2, num_images + 1):
        count = int(rng.integers(0, objects))
        crowd = (rng.random(count) < crowds).tolist()
        records.append(make_record(image_id, rng.integers(0, 3, count).tolist(), draw_boxes(rng, count), crowd))
    for record in records:
        count = int(rng.integers(0, 3 * objects))
        if len(record.labels):
            origin = rng.integers(0, len(record.labels), count)
            boxes, labels = record.bbox_xywh[origin] + rng.normal(0, 8, (count, 4)), record.labels[origin]
        else:
            boxes, labels = draw_boxes(rng, count), np.zeros(count)
        labels = np.where(rng.random(count) < 0.6, labels, rng.integers(0, 3, count))
        detections[record.image_id] = make_detections(boxes.clip(1), np.sort(rng.random(count))[::-1].copy(), labels)
    return make_data(*records, ids=(1, 2, 3)), detections


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes of whole pixels that overlap often."""
    return np.concatenate([rng.integers(0, 60, (count, 2)), rng.integers(20, 60, (count, 2))], 1)
