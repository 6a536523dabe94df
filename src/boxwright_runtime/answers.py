"""Detections of an image as they are answered: those that count, those that are drawn, and rows of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from boxwright_runtime.detections import Detection, Detections
from boxwright_runtime.masks import to_json
from boxwright_runtime.structures import Task


def select_answered(detections: Detections, thresholds: float | Sequence[float], task: Task) -> Detections:
    """Select what counts: detections above a threshold, and a classifier's likeliest class in any case.

    Args:
        detections: all of an image, best first.
        thresholds: least score, or that of each class, by its label.
        task: of the model.
    """
    above = detections.above(thresholds)
    return detections[:1] if task == "classification" and not len(above) else above


def select_drawn(detections: Detections, task: Task) -> Detections:
    """Select what is drawn: all, but one class of an image, whose boxes are all the same."""
    return detections if task == "detection" else detections[:1]


def detection_rows(file_name: str, detections: Detections) -> list[dict[str, Any]]:
    """List detections of one image as JSON rows: ids of the data set, boxes (x, y, w, h) in pixels, RLE masks, perhaps
    ``sides_std`` of (x1, y1, x2, y2)."""
    return [{"file_name": file_name, **object_row(one)} for one in detections]


def object_row(one: Detection) -> dict[str, Any]:
    """List one detection as a JSON row, without its image; see ``detection_rows``."""
    assert one.category is not None  # those of a detector have all of them
    x1, y1, x2, y2 = one.box
    row: dict[str, Any] = {
        "category_id": one.category.id,
        "category_name": one.category.name,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "score": one.score,
    }
    mask = {} if one.mask is None else {"segmentation": to_json(one.mask)}
    std = {} if one.sides_std is None else {"sides_std": list(one.sides_std)}
    return {**row, **mask, **std}
