"""Checks of masks: broken ones, and those that disagree with their boxes and areas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.masks import mask_fault
from boxwright.ops.masks import mask_area, mask_box, rasterize

SHORT_POLYGON = FindingKind(
    "short_polygon", "warning", "masks have a polygon of fewer than three points", "a detector with masks stops at them"
)
FLAT_POLYGON = FindingKind("flat_polygon", "warning", "masks have no area: all points lie on a line", "delete them")
SELF_CROSSING_POLYGON = FindingKind(
    "self_crossing_polygon", "warning", "masks have a polygon that crosses itself", "put its points in order"
)
EMPTY_MASK = FindingKind("empty_mask", "warning", "masks have no pixel", "a detector with masks stops at them")
MASK_OF_OTHER_SIZE = FindingKind(
    "mask_of_other_size", "warning", "masks have another size than their image", "a detector with masks stops at them"
)
BROKEN_MASK = FindingKind("broken_mask", "warning", "masks cannot be read", "a detector with masks stops at them")
MASK_BESIDE_BOX = FindingKind(
    "mask_beside_box", "warning", "masks and boxes of one object disagree", "one of them is wrong"
)
AREA_OF_BOX = FindingKind(
    "area_of_box",
    "note",
    "splits have masks, but the areas of boxes",
    "COCO's metrics by size take the mask's area: the numbers of small and large objects shift",
)
AREA_BESIDE_MASK = FindingKind(
    "area_beside_mask", "warning", "objects have another area than their mask", "metrics by size are wrong"
)
SOME_WITHOUT_MASK = FindingKind(
    "some_without_mask", "warning", "objects have no mask, others of their split have", "a detector with masks stops"
)

_LEAST_IOU = 0.5
"""IoU of a box and the box around its mask, below which they disagree."""

_RATIO = 2.0
"""Ratio of an area and that of its mask beyond which they disagree."""

_MARGIN = 30.0
"""Square pixels by which areas of small objects may differ."""


class _Shape(NamedTuple):
    """Corners of the box around a mask, its area, and whether a polygon of it crosses itself."""

    box: tuple[float, float, float, float]
    area: float
    crosses_itself: bool = False


def find_mask_faults(objects: ObjectTable, split: str) -> list[Finding]:
    """Find masks that are broken, or disagree with their object; none where the split has no masks."""
    findings, without = [], []
    areas: Float64[np.ndarray, " n"] = np.full(len(objects), np.nan)
    for row, segmentation in enumerate(_segmentations(objects)):
        if not segmentation:
            without += [] if objects.crowd[row] else [row]
            continue
        fault = _fault(objects, row, segmentation)
        if fault is not None:
            findings.append(fault)
            continue
        shape = _measure(run_lengths_of(segmentation), *objects.sizes[objects.image_index[row]].tolist())
        findings += _disagreements(objects, row, shape)
        areas[row] = shape.area
    findings += _areas(objects, areas, split)
    if 0 < len(without) < len(objects):
        findings += [objects.finding(SOME_WITHOUT_MASK, row) for row in without]
    return findings


def _segmentations(objects: ObjectTable) -> list[Any]:
    if not any(record.segmentations for record in objects.records):
        return []
    return [
        segmentation
        for record in objects.records
        for segmentation in (record.segmentations or (None,) * len(record.labels))
    ]


def _fault(objects: ObjectTable, row: int, segmentation: Any) -> Finding | None:
    image = int(objects.image_index[row])
    if isinstance(segmentation, list) and any(isinstance(part, list) and len(part) < 6 for part in segmentation):
        return objects.finding(SHORT_POLYGON, row)
    if isinstance(segmentation, dict) and not _is_of_size(segmentation, objects.sizes[image].tolist()):
        return objects.finding(
            MASK_OF_OTHER_SIZE,
            row,
            f"{segmentation.get('size')}, the image has [height, width] {objects.sizes[image].tolist()[::-1]}",
        )
    reason = mask_fault(objects.records[image], row - int(objects.starts[image]))
    if reason is None:
        return None
    kind = EMPTY_MASK if "no pixel" in reason else MASK_BESIDE_BOX if "do not meet" in reason else BROKEN_MASK
    return objects.finding(kind, row, reason)


def _is_of_size(rle: dict[str, Any], size: Sequence[int]) -> bool:
    """Tell whether run lengths are for an image of (width, height); another fault is found later."""
    own = rle.get("size")
    return not (isinstance(own, list | tuple) and len(own) == 2) or list(own) == [size[1], size[0]]


def _measure(segmentation: Any, width: int, height: int) -> _Shape:
    if not isinstance(segmentation, list):
        return _Shape(mask_box(segmentation), float(mask_area(segmentation)))
    parts = [np.asarray(part, dtype=np.float64).reshape(-1, 2) for part in segmentation]
    points = np.concatenate(parts)
    (x1, y1), (x2, y2) = points.min(0).tolist(), points.max(0).tolist()
    following = [np.roll(part, -1, 0) for part in parts]
    area = sum(
        abs(float((one[:, 0] * two[:, 1] - two[:, 0] * one[:, 1]).sum())) / 2
        for one, two in zip(parts, following, strict=True)
    )
    around = sum(float(np.hypot(*(two - one).T).sum()) for one, two in zip(parts, following, strict=True))
    box = (x1, y1, x2, y2)
    # Only then can one be larger than its pixels: worth the time to count them.
    if area > 0.75 * (x2 - x1) * (y2 - y1) or len(parts) > 1:
        return _Shape(box, area)
    pixels = float(mask_area(rasterize([part.ravel().tolist() for part in parts], height, width)))
    return _Shape(box, area, crosses_itself=pixels - area > max(0.1 * pixels, around))


def _disagreements(objects: ObjectTable, row: int, shape: _Shape) -> list[Finding]:
    x1, y1, x2, y2 = objects.xyxy[row].tolist()
    left, top, right, bottom = shape.box
    findings = []
    if shape.area == 0 or shape.crosses_itself:
        findings.append(objects.finding(SELF_CROSSING_POLYGON if shape.crosses_itself else FLAT_POLYGON, row))
    common = max(min(x2, right) - max(x1, left), 0) * max(min(y2, bottom) - max(y1, top), 0)
    union = (x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - common
    # Objects of a few pixels differ by rounding alone.
    apart = max(abs(x1 - left), abs(y1 - top), abs(x2 - right), abs(y2 - bottom))
    if shape.area > 0 and apart > 3 and common < _LEAST_IOU * union:
        detail = f"IoU {common / union:.2f}: mask from ({left:.4g}, {top:.4g}) to ({right:.4g}, {bottom:.4g})"
        findings.append(objects.finding(MASK_BESIDE_BOX, row, detail))
    return findings


def _areas(objects: ObjectTable, areas: Float64[np.ndarray, " n"], split: str) -> list[Finding]:
    """Compare the areas that the file states with those of the masks."""
    rows = np.flatnonzero((areas > 0) & ~objects.crowd)
    stated, measured, boxes = objects.area[rows], areas[rows], objects.box_area[rows]
    of_box = np.isclose(stated, boxes, rtol=0.01) & (measured < 0.9 * boxes)
    if of_box.sum() > 0.5 * len(rows):
        return [Finding(AREA_OF_BOX, split, f"{int(of_box.sum()):,} of {len(rows):,} objects")]
    apart = (stated > _RATIO * measured + _MARGIN) | (stated < measured / _RATIO - _MARGIN)
    # What has no positive area at all is named by its own kind.
    return [
        objects.finding(AREA_BESIDE_MASK, row, f"area {objects.area[row]:.6g}, mask {areas[row]:.6g} square pixels")
        for row in rows[apart & (stated > 0)].tolist()
    ]
