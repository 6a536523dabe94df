"""Findings about annotations that are joined with their images and with the classes of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int64

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.listed_images import NO_SIZE, stated_sizes
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
    stated = stated_sizes(table.images)
    different = np.flatnonzero((stated[:, 0] != NO_SIZE) & (stated != sizes).any(axis=1)).tolist()
    differences = []
    for index in different:
        name, (height, width), (own_height, own_width) = (
            table.images[index].file_name,
            stated[index].tolist(),
            sizes[index].tolist(),
        )
        differences.append(Finding(SIZE_DISAGREES, name, f"file {width}x{height}, image {own_width}x{own_height}"))
    return differences


def find_negative_areas(table: Annotations, dropped: Sequence[int]) -> list[Finding]:
    """Find the annotations whose area is below zero, but for those rows that were dropped."""
    if table.area is None:
        return []
    rows = np.setdiff1d(np.flatnonzero(table.area < 0), np.array(dropped, dtype=np.int64))
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
