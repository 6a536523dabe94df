"""Checks of boxes one by one: beyond the image, without extent, duplicates, shapes that are rarely meant."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind

BOX_BEYOND_IMAGE = FindingKind(
    "box_beyond_image", "warning", "boxes end beyond their image", "they are clipped; --fix writes them clipped"
)
DUPLICATE_BOX = FindingKind(
    "duplicate_box",
    "warning",
    "objects are annotated twice, with the same class",
    "each costs precision: delete one; --fix does",
)
SAME_BOX_OTHER_CLASS = FindingKind(
    "same_box_other_class", "warning", "boxes have two classes", "one of them is wrong, unless objects have two classes"
)
WHOLE_IMAGE_BOX = FindingKind(
    "whole_image_box", "note", "boxes are exactly their whole image", "are they objects, or labels of the image?"
)
NEEDLE_BOX = FindingKind("needle_box", "note", "boxes are over 30 times as long as wide", "few detectors find them")
SUBPIXEL_BOX = FindingKind(
    "subpixel_box", "warning", "boxes are thinner than a pixel", "no detector finds them: delete or correct them"
)

OVERLAP = 0.8
"""IoU from which on two boxes of one class mark the same object."""

_SAME = 0.95
"""IoU from which on two boxes are the same, whatever their classes."""

_LONGEST = 30.0
"""Length of a box in widths beyond which it is a needle."""

_MARGIN = 1.0
"""Pixels that a box may end beyond its image: rounding, or formats that count the last pixel."""


def find_box_faults(objects: ObjectTable) -> list[Finding]:
    """Find boxes that are wrong, or rarely meant, one by one."""
    return [
        *_beyond(objects),
        *_pairs(objects),
        *_whole_images(objects),
        *_thin(objects),
    ]


def duplicate_rows(objects: ObjectTable) -> Bool[np.ndarray, " n"]:
    """Mark each object that repeats an earlier one of its image and class."""
    first, second, iou = overlapping_pairs(objects)
    same = (iou >= OVERLAP) & (objects.labels[first] == objects.labels[second])
    repeated = np.zeros(len(objects), dtype=np.bool_)
    repeated[second[same]] = True
    return repeated


def beyond_image(objects: ObjectTable) -> Float64[np.ndarray, "n 4"]:
    """Return how far each box ends beyond the left, top, right and bottom edge of its image, in pixels; 0 inside."""
    return np.concatenate((-objects.xyxy[:, :2], objects.xyxy[:, 2:] - objects.image_sizes), axis=1).clip(min=0)


def overlapping_pairs(
    objects: ObjectTable,
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"], Float64[np.ndarray, " pairs"]]:
    """Find each object whose box repeats an earlier one of its image with an IoU of ``OVERLAP`` at least; no crowds.

    Boxes are sorted by their left edge. If two have such an IoU, the left edge of the second is within
    ``1 - OVERLAP`` of the first one's width, so that only near neighbors are compared, of all images at once. An
    object is named once as a repetition of its own class, and once as one of another class.

    Returns:
        Rows of the earlier object, of the later one, and the IoU of each pair.
    """
    valid = np.flatnonzero((objects.box_sizes > 0).all(1) & ~objects.crowd)
    order = valid[np.lexsort((objects.xyxy[valid, 0], objects.image_index[valid]))]
    image, labels, boxes = objects.image_index[order], objects.labels[order], objects.xyxy[order]
    area, reach = objects.box_area[order], boxes[:, 0] + (1 - OVERLAP) * (boxes[:, 2] - boxes[:, 0]) + 1e-9
    marked = np.zeros((2, len(objects)), dtype=np.bool_)
    pairs: list[np.ndarray] = []
    left, shift = np.arange(len(order)), 0
    while left.size:
        shift += 1
        left = left[left + shift < len(order)]
        left = left[(image[left] == image[left + shift]) & (boxes[left + shift, 0] <= reach[left])]
        right = left + shift
        iou = _iou(boxes[left], boxes[right], area[left], area[right])
        same = (labels[left] == labels[right]).astype(np.int64)
        later = np.maximum(order[left], order[right])
        hit = (iou >= OVERLAP) & ~marked[same, later]
        marked[same[hit], later[hit]] = True
        pairs.append(np.stack((np.minimum(order[left], order[right])[hit], later[hit], iou[hit])))
    first, second, iou = np.concatenate([np.zeros((3, 0)), *pairs], axis=1)
    by_row = np.lexsort((first, second))
    return first[by_row].astype(np.int64), second[by_row].astype(np.int64), iou[by_row]


def _iou(
    a: Float64[np.ndarray, "n 4"],
    b: Float64[np.ndarray, "n 4"],
    area_a: Float64[np.ndarray, " n"],
    area_b: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, " n"]:
    common = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(min=0).prod(1)
    iou: Float64[np.ndarray, " n"] = common / (area_a + area_b - common)
    return iou


def _beyond(objects: ObjectTable) -> list[Finding]:
    beyond = beyond_image(objects)
    edges = ("left", "top", "right", "bottom")
    findings = []
    for row in np.flatnonzero(beyond.max(1, initial=0) > _MARGIN).tolist():
        parts = [f"{beyond[row, i]:.4g} pixels beyond the {edges[i]} edge" for i in np.flatnonzero(beyond[row] > 0)]
        findings.append(objects.finding(BOX_BEYOND_IMAGE, row, ", ".join(parts)))
    return findings


def _pairs(objects: ObjectTable) -> list[Finding]:
    findings = []
    for first, second, iou in zip(*(column.tolist() for column in overlapping_pairs(objects)), strict=True):
        same = objects.labels[first] == objects.labels[second]
        if same or iou >= _SAME:
            name = "" if same else f" ({objects.class_names[objects.labels[first]]})"
            detail = f"IoU {iou:.2f} with annotation {objects.annotation_id(first)}{name}"
            findings.append(objects.finding(DUPLICATE_BOX if same else SAME_BOX_OTHER_CLASS, second, detail))
    return findings


def _whole_images(objects: ObjectTable) -> list[Finding]:
    inside = np.concatenate((objects.xyxy[:, :2], objects.image_sizes - objects.xyxy[:, 2:]), axis=1)
    whole = (inside <= 0).all(1) & ~objects.crowd
    return [objects.finding(WHOLE_IMAGE_BOX, row) for row in np.flatnonzero(whole).tolist()]


def _thin(objects: ObjectTable) -> list[Finding]:
    short, long = objects.box_sizes.min(1, initial=np.inf), objects.box_sizes.max(1, initial=0)
    findings = []
    for row in np.flatnonzero((short > 0) & ((short < 1) | (long > _LONGEST * short))).tolist():
        width, height = objects.box_sizes[row]
        kind = SUBPIXEL_BOX if short[row] < 1 else NEEDLE_BOX
        findings.append(objects.finding(kind, row, f"{width:.4g} x {height:.4g} pixels"))
    return findings
