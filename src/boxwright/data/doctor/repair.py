"""Repairs that need no judgment: boxes in another form, beyond their image or twice, images that are there twice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boxwright.data.doctor.object_repair import correct_objects, with_boxes
from boxwright.data.doctor.object_table import ObjectTable, image_names
from boxwright.data.doctor.repeated_images import have_other_classes, repeated_in_split
from boxwright.data.doctor.units import MANY_BEYOND_IMAGE, has_many_misfits, kind_of_form
from boxwright.data.file_names import FILE_LISTED_TWICE
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_inspection import IMAGE_KINDS, IMAGE_MISSING, IMAGE_UNREADABLE
from boxwright.data.join_findings import AREA_BY_SIZE, EMPTY_BOX
from boxwright.data.joined_objects import join_objects, restore_dropped
from boxwright.data.records import DetectionData
from boxwright.structures import Task

REPEATED_IMAGE_MERGED = FindingKind(
    "repeated_image_merged", "note", "images that are in their split already, merged with the first"
)
BOXES_CONVERTED = FindingKind(
    "boxes_converted", "note", "splits whose boxes were converted to left, top, width, height"
)
BOXES_LEFT = FindingKind(
    "boxes_left",
    "warning",
    "splits whose boxes were left as they are",
    "most are wrong, and nothing tells how to mend them",
)

_UNCHANGED = {AREA_BY_SIZE, EMPTY_BOX, FILE_LISTED_TWICE, *IMAGE_KINDS.values()} - {IMAGE_MISSING, IMAGE_UNREADABLE}
"""Findings of reading after which the data is as it was; what is done about them has kinds of its own."""


def repair(data: DetectionData, split: str, task: Task = "detection") -> tuple[DetectionData, list[Finding]]:
    """Return a split without the faults that can be repaired, and each change.

    What was left out or repaired while the split was read is among the changes, but for the boxes that were dropped:
    they are restored, and dropped again where they cannot be mended.

    Args:
        data: a split.
        split: its name.
        task: for classification, objects are whole images, and have no boxes to mend.
    """
    changes = [one for one in data.findings if one.kind.severity != "note" and one.kind not in _UNCHANGED]
    objects = ObjectTable.of(data)
    form, boxes = objects.form, objects.file_boxes
    data = restore_dropped(data)
    if task != "classification":
        if form is not None and form.is_clear:
            data, converted = _convert_boxes(data, split)
            changes += converted
        elif form is not None or has_many_misfits(boxes):
            reason = MANY_BEYOND_IMAGE if form is None else kind_of_form(form)
            changes.append(Finding(BOXES_LEFT, split, f"{len(boxes.xywh):,} boxes, {reason.name}"))
            data, merged = _merge_repeated(data, task)
            return replace(data, findings=(), notes=()), [*changes, *merged]
    data, merged = _merge_repeated(data, task)
    changes += merged
    if task != "classification":
        data, corrected = correct_objects(data, split)
        changes += corrected
    return replace(data, findings=(), notes=()), changes


def _convert_boxes(data: DetectionData, split: str) -> tuple[DetectionData, list[Finding]]:
    """Convert boxes that are all in another form, which is clear."""
    objects = ObjectTable.of(data)
    assert objects.form is not None
    boxes = objects.form.convert(objects.file_boxes)
    # The area of wrong boxes is wrong, unless it is that of a mask, or of the right box.
    is_of_box = np.isclose(objects.area, objects.box_area)
    areas = np.where(is_of_box, boxes[:, 2:].prod(1), objects.area)
    records = with_boxes(data.records, boxes, areas, np.ones(len(objects), dtype=np.bool_))
    change = Finding(
        BOXES_CONVERTED, split, f"{len(boxes):,} boxes, {kind_of_form(objects.form).name}, {objects.form.layout}"
    )
    return replace(data, records=records), [change]


def _merge_repeated(data: DetectionData, task: Task) -> tuple[DetectionData, list[Finding]]:
    """Merge images that repeat an earlier one with it: their objects may have been divided between them."""
    first_of = repeated_in_split(data)
    names, records, changes = image_names(data.records), list(data.records), []
    gone = set()
    for index, first in sorted(first_of.items()):
        first = first_of.get(first, first)  # the first of a file may have the bytes of an earlier one
        if have_other_classes(records[index], records[first]):
            continue
        gone.add(index)
        if task != "classification":
            records[first] = join_objects(records[first], records[index])
        objects = f"{len(records[index].labels)} objects, image id {records[index].image_id}"
        changes.append(Finding(REPEATED_IMAGE_MERGED, names[index], f"with {names[first]}, {objects}"))
    if not gone:
        return data, []
    kept = [index for index in range(len(records)) if index not in gone]
    facts = tuple(data.facts[index] for index in kept) if data.facts else ()
    return replace(data, records=tuple(records[index] for index in kept), facts=facts), changes
