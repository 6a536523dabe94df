"""Repairs that need no judgment: boxes in another form, beyond their image or twice, images that are there twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from boxwright.data.doctor.box_faults import beyond_image, duplicate_rows
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.repeated_images import repeated_in_split
from boxwright.data.doctor.units import CENTERS_AS_CORNERS, CORNERS_AS_SIZES, FRACTIONS_AS_PIXELS, find_wrong_units
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_inspection import IMAGE_KINDS, IMAGE_MISSING, IMAGE_UNREADABLE
from boxwright.data.join_findings import AREA_BY_SIZE
from boxwright.data.records import DetectionData, Record

REPEATED_IMAGE_DROPPED = FindingKind(
    "repeated_image_dropped", "note", "images dropped with their objects, as they are in their split already"
)
BOX_DROPPED = FindingKind("box_dropped", "note", "boxes without area inside their image dropped")
DUPLICATE_DROPPED = FindingKind("duplicate_dropped", "note", "objects dropped that were annotated twice")
BOX_CLIPPED = FindingKind("box_clipped", "note", "boxes clipped to their image")
BOXES_CONVERTED = FindingKind(
    "boxes_converted", "note", "splits whose boxes were converted to left, top, width, height"
)
AREA_CORRECTED = FindingKind("area_corrected", "note", "areas taken from the boxes")

_UNCHANGED = {AREA_BY_SIZE, *IMAGE_KINDS.values()} - {IMAGE_MISSING, IMAGE_UNREADABLE}
"""Findings of reading after which the data is as it was; what is done about them has kinds of its own."""

_CLIPPED_FROM = 1e-6
"""Pixels beyond the image from which on a box is clipped."""


def repair(data: DetectionData, split: str) -> tuple[DetectionData, list[Finding]]:
    """Return a split without the faults that can be repaired, and each change.

    What was left out or repaired while the split was read is among the changes.

    Args:
        data: a split.
        split: its name.
    """
    changes = [one for one in data.findings if one.kind.severity != "note" and one.kind not in _UNCHANGED]
    repeated = repeated_in_split(data)
    names = ObjectTable.of(data).names
    changes += [
        Finding(REPEATED_IMAGE_DROPPED, names[index], f"{len(data.records[index].labels)} objects")
        for index in repeated
    ]
    kept = [index for index in range(len(data.records)) if index not in set(repeated)]
    facts = tuple(data.facts[index] for index in kept) if data.facts else ()
    data = replace(data, records=tuple(data.records[index] for index in kept), facts=facts)
    data, converted = _convert_boxes(data, split)
    data, corrected = _correct_objects(data)
    return replace(data, findings=(), notes=()), [*changes, *converted, *corrected]


def _convert_boxes(data: DetectionData, split: str) -> tuple[DetectionData, list[Finding]]:
    """Convert boxes that are all in another form."""
    objects = ObjectTable.of(data)
    converted = [one for one in find_wrong_units(objects, split) if one.kind in _CONVERSIONS]
    if not converted:
        return data, []
    kind = converted[0].kind
    boxes = np.concatenate((objects.xyxy[:, :2], objects.box_sizes), axis=1)
    boxes = _CONVERSIONS[kind](boxes, objects.image_sizes)
    # The area of wrong boxes is wrong, unless it is that of a mask.
    stated = np.isclose(objects.area, objects.box_area)
    areas = np.where(stated, boxes[:, 2:].prod(1), objects.area)
    records = _with_boxes(data.records, boxes, areas, np.ones(len(objects), dtype=np.bool_))
    return replace(data, records=records), [Finding(BOXES_CONVERTED, split, f"{len(boxes):,} boxes, {kind.name}")]


def _of_corners(boxes: Float64[np.ndarray, "n 4"], _sizes: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _of_centers(boxes: Float64[np.ndarray, "n 4"], _sizes: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 4"]:
    return np.concatenate((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]), axis=1)


def _of_fractions(boxes: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 4"]:
    return np.asarray(boxes * np.tile(sizes, 2))


_CONVERSIONS = {
    CORNERS_AS_SIZES: _of_corners,
    CENTERS_AS_CORNERS: _of_centers,
    FRACTIONS_AS_PIXELS: _of_fractions,
}


def _correct_objects(data: DetectionData) -> tuple[DetectionData, list[Finding]]:
    """Clip boxes, drop those without area and those that are there twice, and correct areas that cannot be."""
    objects = ObjectTable.of(data)
    beyond = beyond_image(objects).max(1, initial=0)
    low = objects.xyxy.clip(0, np.tile(objects.image_sizes, 2))
    sizes = low[:, 2:] - low[:, :2]
    has_area = (sizes > 0).all(1)
    repeated = duplicate_rows(objects)
    clipped = (beyond > _CLIPPED_FROM) & has_area & ~repeated
    area, box_area = objects.area, sizes.prod(1)
    impossible = ((area <= 0) | (area > 1.2 * (sizes + 1).prod(1))) & has_area & ~repeated
    follows = np.isclose(area, objects.box_area) & clipped
    areas = np.where(impossible | follows, box_area, area)
    boxes = np.concatenate((low[:, :2], sizes), axis=1)
    boxes[~clipped] = np.concatenate((objects.xyxy[:, :2], objects.box_sizes), axis=1)[~clipped]
    changes = {
        BOX_DROPPED: ~has_area,
        DUPLICATE_DROPPED: repeated & has_area,
        BOX_CLIPPED: clipped,
        AREA_CORRECTED: impossible & ~follows,
    }
    details = {BOX_CLIPPED: beyond, AREA_CORRECTED: area}
    findings = [
        objects.finding(kind, row, f"{details[kind][row]:.4g}" if kind in details else "")
        for kind, rows in changes.items()
        for row in np.flatnonzero(rows).tolist()
    ]
    if not findings:
        return data, []
    records = _with_boxes(data.records, boxes, areas, has_area & ~repeated)
    return replace(data, records=records), findings


def _with_boxes(
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
        kept = np.flatnonzero(keep[rows])
        result.append(
            replace(
                record,
                labels=record.labels[kept],
                bbox_xywh=boxes[rows][kept],
                area=areas[rows][kept],
                crowd=record.crowd[kept],
                annotation_ids=tuple(record.annotation_ids[index] for index in kept.tolist()),
                segmentations=tuple(record.segmentations[index] for index in kept.tolist())
                if record.segmentations
                else (),
            )
        )
    return tuple(result)
