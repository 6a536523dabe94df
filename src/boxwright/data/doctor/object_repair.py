"""Repairs of objects one by one: boxes are clipped or dropped with their masks, areas corrected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from boxwright.data.doctor.box_faults import beyond_image, duplicate_rows
from boxwright.data.doctor.box_forms import stray_boxes
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.polygon_clips import clip_segmentation, outline_area
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.join_findings import describe_values
from boxwright.data.joined_objects import select_objects
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.masks import mask_fault
from boxwright.data.records import DetectionData, Record
from boxwright.ops.masks import mask_area

BOX_DROPPED = FindingKind("box_dropped", "note", "boxes without area inside their image dropped")
DUPLICATE_DROPPED = FindingKind("duplicate_dropped", "note", "objects dropped that were annotated twice")
NEGATIVE_SIZE_MENDED = FindingKind(
    "negative_size_mended", "note", "boxes with a negative width or height, which was counted from the other corner"
)
BOX_CLIPPED = FindingKind("box_clipped", "note", "boxes clipped to their image")
MASK_CLIPPED = FindingKind("mask_clipped", "note", "outlines of masks clipped to their image")
AREA_CORRECTED = FindingKind("area_corrected", "note", "areas taken from the boxes or masks")
STRAYS_LEFT = FindingKind(
    "strays_left",
    "warning",
    "boxes in another form than the rest of their split, left as they are",
    "correct them, or export them again",
)

_CLIPPED_FROM = 1e-6
"""Pixels beyond the image from which on a box is clipped."""

_AREAS_ALIKE = 0.1
"""Ratio by which the area of a mask's pixels differs from that of its outline."""


def correct_objects(data: DetectionData, split: str) -> tuple[DetectionData, list[Finding]]:
    """Clip boxes and masks, drop boxes without area and those that are there twice, correct areas that cannot be.

    Args:
        data: a split, whose boxes are in the form of left, top, width and height.
        split: its name.
    """
    data, changes = _turn_boxes(data)
    data, clipped = _clip_masks(data)
    data, corrected = _correct_boxes(data, split)
    return data, [*changes, *clipped, *corrected]


def with_boxes(
    records: Sequence[Record],
    boxes: Float64[np.ndarray, "n 4"],
    areas: Float64[np.ndarray, " n"],
    keep: Bool[np.ndarray, " n"],
) -> tuple[Record, ...]:
    """Return the records with other boxes and areas, of those objects that are kept."""
    start, result = 0, []
    for record in records:
        rows = slice(start, start + len(record.labels))
        start = rows.stop
        changed = replace(record, bbox_xywh=boxes[rows], area=areas[rows])
        kept = np.flatnonzero(keep[rows]).tolist()
        result.append(changed if len(kept) == len(record.labels) else select_objects(changed, kept))
    return tuple(result)


def _turn_boxes(data: DetectionData) -> tuple[DetectionData, list[Finding]]:
    """Give boxes with a negative width or height their other corner, where that makes an area inside the image."""
    objects = ObjectTable.of(data)
    corners = np.concatenate(
        (np.minimum(objects.xyxy[:, :2], objects.xyxy[:, 2:]), np.maximum(objects.xyxy[:, :2], objects.xyxy[:, 2:])), 1
    )
    inside = corners.clip(0, np.tile(objects.image_sizes, 2))
    turned = (objects.box_sizes < 0).any(1) & (inside[:, 2:] > inside[:, :2]).all(1)
    if not turned.any():
        return data, []
    boxes = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)
    boxes[~turned] = _bbox_xywh(objects)[~turned]
    follows = turned & np.isclose(np.abs(objects.area), boxes[:, 2:].prod(1))
    areas = np.where(follows, boxes[:, 2:].prod(1), objects.area)
    findings = [_name_change(NEGATIVE_SIZE_MENDED, objects, row) for row in np.flatnonzero(turned).tolist()]
    return replace(data, records=with_boxes(data.records, boxes, areas, np.ones_like(turned))), findings


def _clip_masks(data: DetectionData) -> tuple[DetectionData, list[Finding]]:
    """Clip outlines, and the areas that are theirs."""
    if not any(record.segmentations for record in data.records):
        return data, []
    objects = ObjectTable.of(data)
    records, findings = list(data.records), []
    for index, record in enumerate(records):
        segmentations, areas = list(record.segmentations), record.area.copy()
        for row, segmentation in enumerate(segmentations):
            clipped = clip_segmentation(segmentation, record.width, record.height)
            # A mask of which nothing is left needs judgment.
            if clipped is None or clipped is segmentation:
                continue
            segmentations[row] = clipped
            before, after = outline_area(segmentation) or 0.0, outline_area(clipped) or 0.0
            is_of_mask = before > 0 and abs(areas[row] - before) <= _AREAS_ALIKE * before
            areas[row] *= after / before if is_of_mask else 1
            where = int(objects.starts[index]) + row
            findings.append(objects.finding(MASK_CLIPPED, where, f"{before:.6g} square pixels, now {after:.6g}"))
            records[index] = replace(record, segmentations=tuple(segmentations), area=areas)
    return (replace(data, records=tuple(records)), findings) if findings else (data, [])


def _correct_boxes(data: DetectionData, split: str) -> tuple[DetectionData, list[Finding]]:
    objects = ObjectTable.of(data)
    strays = np.zeros(len(objects), dtype=np.bool_)
    for mask in stray_boxes(objects.file_boxes).values():
        strays |= mask
    beyond = beyond_image(objects).max(1, initial=0)
    inside = objects.xyxy.clip(0, np.tile(objects.image_sizes, 2))
    sizes = inside[:, 2:] - inside[:, :2]
    has_area = (sizes > 0).all(1)
    repeated = duplicate_rows(objects)
    clipped = (beyond > _CLIPPED_FROM) & has_area & ~repeated & ~strays
    impossible = (objects.area <= 0) | (objects.area > 1.2 * (sizes + 1).prod(1))
    follows = np.isclose(objects.area, objects.box_area) & clipped
    corrected = impossible & has_area & ~repeated & ~strays & ~follows
    areas = np.where(follows, sizes.prod(1), objects.area)
    for row in np.flatnonzero(corrected).tolist():
        areas[row] = _measure_mask(objects, row) or sizes[row].prod()
    boxes = np.where(clipped[:, None], np.concatenate((inside[:, :2], sizes), axis=1), _bbox_xywh(objects))
    changes = {
        BOX_DROPPED: ~has_area,
        DUPLICATE_DROPPED: repeated & has_area,
        BOX_CLIPPED: clipped,
        AREA_CORRECTED: corrected,
    }
    findings = [
        _name_change(kind, objects, row) for kind, rows in changes.items() for row in np.flatnonzero(rows).tolist()
    ]
    if findings:
        data = replace(data, records=with_boxes(data.records, boxes, areas, has_area & ~repeated))
    if strays.any():
        findings.append(Finding(STRAYS_LEFT, split, f"{int(strays.sum()):,} of {len(strays):,} boxes"))
    return data, findings


def _measure_mask(objects: ObjectTable, row: int) -> float | None:
    """Return the area of an object's mask; None where it has none, or a broken one."""
    image = int(objects.image_index[row])
    record, at = objects.records[image], row - int(objects.starts[image])
    if not record.segmentations or not record.segmentations[at] or mask_fault(record, at) is not None:
        return None
    segmentation = run_lengths_of(record.segmentations[at])
    area = outline_area(segmentation)
    return float(mask_area(segmentation)) if area is None else area


def _name_change(kind: FindingKind, objects: ObjectTable, row: int) -> Finding:
    """Name an object that is changed, with the values that it had."""
    values = describe_values(_bbox_xywh(objects)[row], float(objects.area[row]), is_crowd=bool(objects.crowd[row]))
    return objects.finding(kind, row, f"was {values}")


def _bbox_xywh(objects: ObjectTable) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate((objects.xyxy[:, :2], objects.box_sizes), axis=1)
