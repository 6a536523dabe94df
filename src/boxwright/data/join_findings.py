"""Findings about annotations that are joined with their images and with the classes of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.listed_images import NO_SIZE, stated_sizes
from boxwright.data.record_table import RecordTable
from boxwright.structures import Category

EMPTY_BOX = FindingKind("empty_box", "warning", "annotations without area inside their image dropped")
SIZE_DISAGREES = FindingKind(
    "size_disagrees",
    "warning",
    "images have another size than the file says (the image's own counts, after its EXIF rotation; "
    "look whether the boxes fit)",
)
AREA_BY_SIZE = FindingKind(
    "area_by_size", "warning", "annotations have a negative area, which counts by its size in evaluation"
)
UNUSED_CATEGORY = FindingKind(
    "unused_category", "note", "categories have no annotations here, and are classes all the same"
)
UNKNOWN_CATEGORY = FindingKind(
    "unknown_category", "note", "categories without annotations are unknown to the model, and ignored"
)
CATEGORY_ID_DIFFERS = FindingKind(
    "category_id_differs", "note", "category ids differ from the model's, matched by name"
)


def find_unused_categories(table: Annotations) -> list[Finding]:
    """Find the categories of a table that no annotation has."""
    used = np.isin(np.arange(len(table.categories)), table.labels)
    return [Finding(UNUSED_CATEGORY, repr(table.categories[label].name)) for label in np.flatnonzero(~used)]


def find_category_differences(
    table: Annotations, categories: Sequence[Category], lookup: Int64[np.ndarray, " k"]
) -> list[Finding]:
    """Find differences between the categories of a table and those of a model.

    Args:
        table: its labels are its own.
        categories: of the model.
        lookup: the model's label of each category of the table; -1 where it has none.
    """
    differences = [Finding(UNKNOWN_CATEGORY, repr(table.categories[own].name)) for own in np.flatnonzero(lookup < 0)]
    if table.has_category_ids:
        differences += [
            Finding(CATEGORY_ID_DIFFERS, repr(own.name), f"{own.id} here, {categories[label].id} there")
            for own, label in zip(table.categories, lookup, strict=True)
            if label >= 0 and own.id != categories[label].id
        ]
    return differences


def find_size_disagreements(table: Annotations, sizes: Int64[np.ndarray, "images 2"]) -> list[Finding]:
    """Find the images whose own (height, width) is not the one that the file states."""
    differences = []
    for index, (height, width) in _other_sizes(table, sizes).items():
        own_height, own_width = sizes[index].tolist()
        is_turned = (height, width) == (own_width, own_height)
        turned = "; sides exchanged: from before the EXIF rotation?" if is_turned else ""
        detail = f"file {width}x{height}, image {own_width}x{own_height}{turned}"
        differences.append(Finding(SIZE_DISAGREES, table.images[index].file_name, detail))
    return differences


def list_other_sizes(table: Annotations, sizes: Int64[np.ndarray, "images 2"]) -> dict[int, tuple[int, int]]:
    """Return the (height, width) that the file states for an image, by its id, where it is not its own."""
    return {table.images[index].id: size for index, size in _other_sizes(table, sizes).items()}


def _other_sizes(table: Annotations, sizes: Int64[np.ndarray, "images 2"]) -> dict[int, tuple[int, int]]:
    """Return the stated (height, width) of the images for which it is not their own, by their indices."""
    stated = stated_sizes(table.images)
    different = np.flatnonzero((stated[:, 0] != NO_SIZE) & (stated != sizes).any(axis=1))
    pairs = zip(different.tolist(), stated[different].tolist(), strict=True)
    return {index: (height, width) for index, (height, width) in pairs}


def find_empty_boxes(table: Annotations, dropped: RecordTable, categories: Sequence[Category]) -> list[Finding]:
    """Name the annotations that were dropped, with their classes and values, so that they can be restored.

    Args:
        table: that they are of.
        dropped: of all images, with these annotations only.
        categories: label ``i`` of the table is ``categories[i]``.
    """
    findings = []
    image_index = dropped.columns().image_index.tolist()
    for row, (name, annotation) in enumerate(name_annotations(table, dropped.rows.tolist())):
        height, width = dropped.sizes[image_index[row]].tolist()
        values = describe_values(dropped.bbox_xywh[row], float(dropped.area[row]), is_crowd=bool(dropped.crowd[row]))
        detail = f"{annotation} ({categories[dropped.labels[row]].name}): {values}, image {width} x {height}"
        findings.append(Finding(EMPTY_BOX, name, detail))
    return findings


def describe_values(bbox: Float64[np.ndarray, "xywh=4"], area: float, *, is_crowd: bool = False) -> str:
    """Describe the values of an annotation, so that it can be restored: ``left 3, top 5, 0 x 14 pixels``.

    Args:
        bbox: left, top, width and height.
        area: is named where it is not that of the box.
        is_crowd: it marks a group.
    """
    left, top, width, height = (f"{value:.10g}" for value in bbox.tolist())
    text = f"left {left}, top {top}, {width} x {height} pixels"
    if not np.isclose(area, bbox[2] * bbox[3]):
        text += f", area {area:.10g}"
    return f"{text}, crowd" if is_crowd else text


def find_negative_areas(table: Annotations, dropped: Int64[np.ndarray, " m"]) -> list[Finding]:
    """Find the annotations whose area is below zero, but for those rows that were dropped."""
    if table.area is None:
        return []
    rows = np.setdiff1d(np.flatnonzero(table.area < 0), dropped)
    return [
        Finding(AREA_BY_SIZE, name, f"{detail}: {area:g}")
        for (name, detail), area in zip(name_annotations(table, rows.tolist()), table.area[rows].tolist(), strict=True)
    ]


def name_annotations(table: Annotations, rows: Iterable[int]) -> list[tuple[str, str]]:
    """Return the name of the image and of the annotation for some rows of a table, as a finding has them."""
    names = []
    for row in rows:
        number = row + 1 if table.annotation_ids is None else table.annotation_ids[row]
        names.append((table.images[int(table.image_index[row])].file_name, f"annotation {number}"))
    return names
