"""Errors of a detector by kind, and the average precision that each kind costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import IoUType, image_numbers
from boxwright.evaluation.coco_metrics import UNDEFINED
from boxwright.evaluation.error_table import HIT, ErrorTable, tabulate_errors
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.evaluation.matched_detections import MatchedDetections, group_indices, match_detections
from boxwright.evaluation.near_duplicates import count_near_duplicates
from boxwright_runtime.detections import Detections

KINDS = ("classification", "localization", "both", "duplicate", "background", "missed")
"""The class is wrong, the box is off, both are, an object is detected twice, there is no object, or no detection."""

_DETECTED_KINDS = ("hit", *KINDS[:5])


class ErrorCosts(NamedTuple):
    """Errors of one kind.

    Args:
        num_errors: of this kind.
        cost: AP50 that would be gained if there were none of this kind; those of several kinds do not add up. In all
            it is at least 0; of one class it may be slightly below.
    """

    num_errors: int
    cost: float


@dataclass(frozen=True)
class ClassErrors:
    """Errors of one class.

    Args:
        name: of the class.
        num_objects: to be detected.
        AP50: average precision at IoU 0.5; -1 without objects.
        kinds: by the name of the kind. Detections are those of the class; a wrong class costs both classes.
        near_duplicates: pairs of detections of this class that are likely of one object.
    """

    name: str
    num_objects: int
    AP50: float
    kinds: dict[str, ErrorCosts]
    near_duplicates: int


class ImageErrors(NamedTuple):
    """Errors in one image.

    Args:
        image_id: of it.
        detections: kind of each of its detections: ``hit``, a kind of error, or ``ignored``: in a crowd, or beyond
            the number of detections that count.
        objects: position of the object of the image that each detection is of, or was to be; -1 for none.
        missed: positions of the objects that no detection is of.
    """

    image_id: int
    detections: tuple[str, ...]
    objects: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def num_errors(self) -> int:
        """Number of wrong detections and of missed objects."""
        return sum(kind not in ("hit", "ignored") for kind in self.detections) + len(self.missed)


@dataclass(frozen=True, eq=False)
class DetectionErrors:
    """Errors of detections by kind.

    Args:
        AP50: average precision at IoU 0.5, mean over classes with objects; -1 without any.
        kinds: by the name of the kind.
        per_class: in the order of the labels.
        near_duplicates: pairs of detections of one class that are likely of one object: IoU above 0.7 and scores of
            0.3 or more. Heads without NMS may leave some.
        images: by image id.
        table: all detections, for questions that the numbers above leave open.
    """

    AP50: float
    kinds: dict[str, ErrorCosts]
    per_class: tuple[ClassErrors, ...]
    near_duplicates: int
    images: Mapping[int, ImageErrors]
    table: ErrorTable

    def worst_images(self, count: int = 40) -> list[ImageErrors]:
        """Return the images with most errors, those first; ones without any are not among them."""
        wrong = [one for one in self.images.values() if one.num_errors]
        return sorted(wrong, key=lambda one: (-one.num_errors, one.image_id))[:count]

    def to_json(self) -> dict[str, Any]:
        """Return all numbers but those of images, ready for ``json.dump``."""
        rows = [{**vars(row), "kinds": _plain(row.kinds)} for row in self.per_class]
        numbers = {"AP50": self.AP50, "kinds": _plain(self.kinds), "near_duplicates": self.near_duplicates}
        return {**numbers, "per_class": rows}


def find_errors(
    data: DetectionData,
    detections: Mapping[int, Detections],
    *,
    iou_type: IoUType = "bbox",
    max_detections: int = MAX_DETECTIONS,
    matched: MatchedDetections | None = None,
) -> DetectionErrors:
    """Find the errors of detections, and how much AP50 each kind costs.

    Detections of any score are looked at. Those above thresholds alone are what a user sees; see ``above_thresholds``.

    Args:
        data: the images and their objects.
        detections: by image id; an image that is not among them has none.
        iou_type: overlap of boxes, or of masks.
        max_detections: per image and class, the best so many count.
        matched: the detections, matched already, with all objects and at IoU 0.5.

    Raises:
        ValueError: masks are needed and missing.

    Source: see ``tabulate_errors``.
    """
    data = restore_dropped(data)
    if matched is None:
        matched = match_detections(data, detections, iou_type=iou_type, max_detections=max_detections)
    table = tabulate_errors(data, detections, matched, iou_type)
    near = count_near_duplicates(detections, len(data.categories))
    base, corrected = table.precision_without(), _correct_each(table)
    kinds = _kinds_of_classes(table, base, corrected)
    rows = tuple(
        ClassErrors(
            name=category.name,
            num_objects=int(table.num_objects[label]),
            AP50=float(np.nan_to_num(base[label], nan=UNDEFINED)),
            kinds=kinds[label],
            near_duplicates=int(near[label]),
        )
        for label, category in enumerate(data.categories)
    )
    return DetectionErrors(
        AP50=_mean(base),
        kinds={
            kind: ErrorCosts(sum(row.kinds[kind].num_errors for row in rows), max(0.0, _mean(values) - _mean(base)))
            for kind, values in corrected.items()
        },
        per_class=rows,
        near_duplicates=int(near.sum()),
        images=_errors_of_images(data, detections, table),
        table=table,
    )


def _correct_each(table: ErrorTable) -> dict[str, Float64[np.ndarray, " k"]]:
    """Compute AP50 of each class without the errors of each kind."""
    detected = {kind: table.precision_without(table.kinds == index) for index, kind in enumerate(KINDS[:5], HIT + 1)}
    return {**detected, KINDS[5]: table.precision_without(missed=table.missed)}


def _kinds_of_classes(
    table: ErrorTable, base: Float64[np.ndarray, " k"], corrected: Mapping[str, Float64[np.ndarray, " k"]]
) -> list[dict[str, ErrorCosts]]:
    num_classes = len(base)
    counts = {
        kind: np.bincount(table.labels[table.kinds == index], minlength=num_classes)
        for index, kind in enumerate(KINDS[:5], HIT + 1)
    }
    counts[KINDS[5]] = np.bincount(table.object_labels[table.missed], minlength=num_classes)
    # A class that nothing is left of has no error.
    costs = {kind: np.nan_to_num(np.nan_to_num(values, nan=1.0) - base) for kind, values in corrected.items()}
    return [
        {kind: ErrorCosts(int(counts[kind][label]), float(costs[kind][label])) for kind in KINDS}
        for label in range(num_classes)
    ]


def _mean(values: Float64[np.ndarray, " k"]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else UNDEFINED


def _errors_of_images(
    data: DetectionData, detections: Mapping[int, Detections], table: ErrorTable
) -> dict[int, ImageErrors]:
    numbers = image_numbers(data)
    starts = np.cumsum([0, *(len(record.labels) for record in data.records)])
    by_image = group_indices(table.images, len(numbers))
    errors = {}
    for record, start, end in zip(data.records, starts, starts[1:], strict=False):
        rows = by_image[numbers[record.image_id]]
        count = len(detections.get(record.image_id, ()))
        kinds, objects = np.full(count, "ignored", dtype=object), np.full(count, -1)
        kinds[table.positions[rows]] = np.array(_DETECTED_KINDS, dtype=object)[table.kinds[rows]]
        objects[table.positions[rows]] = np.where(table.objects[rows] < 0, -1, table.objects[rows] - start)
        missed = np.flatnonzero(table.missed[start:end])
        errors[record.image_id] = ImageErrors(
            record.image_id, tuple(kinds.tolist()), tuple(objects.tolist()), tuple(missed.tolist())
        )
    return errors


def _plain(kinds: Mapping[str, ErrorCosts]) -> dict[str, dict[str, int | float]]:
    return {kind: costs._asdict() for kind, costs in kinds.items()}
