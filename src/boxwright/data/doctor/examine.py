"""The checks of all subjects together, for one split and for the splits of a data set."""

from __future__ import annotations

from collections.abc import Mapping

from boxwright.data.doctor.areas import find_area_faults
from boxwright.data.doctor.box_faults import find_box_faults
from boxwright.data.doctor.classes import find_class_faults, find_name_faults
from boxwright.data.doctor.image_faults import are_all_gray, find_image_faults, find_unlisted_images
from boxwright.data.doctor.mask_faults import find_mask_faults
from boxwright.data.doctor.misplaced_boxes import find_misplaced_boxes
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.repeated_images import find_repeated_images
from boxwright.data.doctor.splits import find_split_faults
from boxwright.data.doctor.units import find_misfits, find_wrong_units
from boxwright.data.findings import Finding
from boxwright.data.records import DetectionData
from boxwright.structures import Task


def examine_images(
    splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable], *, near: bool = True, unlisted: bool = True
) -> list[tuple[str, Finding]]:
    """Examine the images of all splits; return the split of each finding, and the finding.

    Args:
        splits: by their names.
        objects: of each split.
        near: also look for images that are nearly the same, which takes longer.
        unlisted: also look for images in no split, which says something where all splits could be read.
    """
    with_gray = not are_all_gray(splits.values())
    findings = [
        (name, finding)
        for name, data in splits.items()
        for finding in find_image_faults(data, objects[name], with_gray=with_gray)
    ]
    findings += find_repeated_images(splits, objects, near=near)
    return findings + [("", finding) for finding in (find_unlisted_images(splits) if unlisted else ())]


def examine_split(objects: ObjectTable, split: str, *, task: Task = "detection", masks: bool = True) -> list[Finding]:
    """Examine the objects of a split.

    Boxes that are all in another form than the format's are one finding, and are not examined one by one.

    Args:
        objects: of the split.
        split: its name.
        task: for classification, objects are whole images, and have no boxes to examine.
        masks: also each mask, which takes longer.
    """
    findings = find_class_faults(objects, split)
    if task == "classification":
        return findings
    wrong_units = find_wrong_units(objects, split)
    if wrong_units:
        return findings + wrong_units
    misfits = find_misfits(objects, split)
    findings += misfits or find_misplaced_boxes(objects, split)
    findings += find_box_faults(objects) + find_area_faults(objects, split)
    return findings + find_mask_faults(objects, split) if masks else findings


def examine_splits(splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable]) -> list[Finding]:
    """Examine what the splits of a data set have to do with each other, and the names of all their classes."""
    names = {category.name: category for data in splits.values() for category in data.categories}
    return find_name_faults(list(names.values())) + find_split_faults(splits, objects)
