"""Metrics of a part of the objects or images: by the size of objects, by the number of objects in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData, object_columns
from boxwright.evaluation.coco_evaluator import IoUType, image_numbers, results_of, run_evaluator
from boxwright.evaluation.coco_metrics import mean_defined
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright_runtime.detections import Detections

DENSITIES = (0, 1, 2, 6, 21, 101)
"""Images are sliced by the number of their objects from these numbers on."""

_SIZES = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, np.inf)}
"""COCO's, in square pixels; an object between two is of both."""


@dataclass(frozen=True)
class Slice:
    """Metrics of some objects; -1 where there are none.

    Args:
        kind: ``size`` or ``density``.
        name: of the slice, as ``small``, or ``2 to 5 objects``.
        num_images: of it; of a size, those with such objects.
        num_objects: of it, crowds not counted.
        AP: mean over IoU 0.50 to 0.95.
        AP50: at IoU 0.5.
        AR: average recall, over the same.
    """

    kind: str
    name: str
    num_images: int
    num_objects: int
    AP: float
    AP50: float
    AR: float

    def to_json(self) -> dict[str, Any]:
        """Return all values, ready for ``json.dump``."""
        return asdict(self)


def slice_metrics(
    data: DetectionData,
    detections: Mapping[int, Detections],
    *,
    iou_type: IoUType = "bbox",
    max_detections: int = MAX_DETECTIONS,
) -> tuple[Slice, ...]:
    """Measure detections by the size of objects, which is COCO's, and by the number of objects in an image.

    Args:
        data: the images and their objects.
        detections: by image id.
        iou_type: overlap of boxes, or of masks.
        max_detections: per image and class, the best so many count.

    Returns:
        Three sizes, then the densities that there are images of, from few objects to many.
    """
    data = restore_dropped(data)
    evaluator = run_evaluator(data, results_of(data, detections, iou_type), iou_type, max_detections)
    evaluator.accumulate()
    assert evaluator.eval is not None  # it is there after accumulate
    sizes = _slice_sizes(data, evaluator.eval["precision"][..., -1], evaluator.eval["recall"][..., -1])
    images, counts = _group_images(data)
    # AR100 is its name for the one with the most detections, however many.
    measured = evaluator.slice_by(images)
    return sizes + tuple(
        Slice("density", name, len(own), counts[name], *(measured[name][key] for key in ("AP", "AP50", "AR100")))
        for name, own in images.items()
    )


def _slice_sizes(data: DetectionData, precision: np.ndarray, recall: np.ndarray) -> tuple[Slice, ...]:
    """Read the metrics of sizes from the evaluator's arrays: IoU, recall, class and area; IoU, class and area."""
    objects = object_columns(data.records)
    slices = []
    for index, (name, (least, most)) in enumerate(_SIZES.items(), 1):
        inside = (objects.area >= least) & (objects.area <= most) & ~objects.crowd
        numbers = (precision[..., index], precision[0, ..., index], recall[..., index])
        num_images = len(np.unique(objects.image_index[inside]))
        slices.append(Slice("size", name, num_images, int(inside.sum()), *map(mean_defined, numbers)))
    return tuple(slices)


def _group_images(data: DetectionData) -> tuple[dict[str, list[int]], dict[str, int]]:
    """Return the numbers of the images of each density that there is, and how many objects they have."""
    objects = object_columns(data.records)
    per_image = np.bincount(objects.image_index[~objects.crowd], minlength=len(data.records))
    numbers = image_numbers(data)
    of_record = np.array([numbers[record.image_id] for record in data.records])
    images, counts = {}, {}
    for low, high in zip(DENSITIES, (*DENSITIES[1:], None), strict=True):
        inside = (per_image >= low) & (per_image < (np.inf if high is None else high))
        if inside.any():
            name = _name_density(low, high)
            images[name], counts[name] = of_record[inside].tolist(), int(per_image[inside].sum())
    return images, counts


def _name_density(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} objects or more"
    if high == low + 1:
        return "1 object" if low == 1 else f"{low or 'no'} objects"
    return f"{low} to {high - 1} objects"
