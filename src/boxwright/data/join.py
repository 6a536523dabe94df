"""Annotations of any format, joined with their images and matched with the classes of a model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.data.file_names import locate_images
from boxwright.data.findings import Finding, summarize
from boxwright.data.image_check import ProgressCallback, first_names, inspect_images, require_readable
from boxwright.data.image_inspection import ImageFacts
from boxwright.data.join_findings import (
    EMPTY_BOX,
    find_category_differences,
    find_negative_areas,
    find_size_disagreements,
    find_unused_categories,
    name_annotations,
)
from boxwright.data.mask_file import MaskFile
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def join_images(
    table: Annotations,
    *,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    progress: ProgressCallback | None = None,
) -> DetectionData:
    """Join a table of annotations with its images.

    Label ``i`` is the ``i``-th category of the table. Every category is a class, with or without annotations: some
    exports begin with a super-category that has none, and dropping it could number the classes of two splits
    differently. Images without annotations are kept. Annotations without area inside their image are dropped, with a
    note. An image's size is its own, after the EXIF rotation.

    Args:
        table: returned by a reader.
        categories: the classes of a model. The table's categories are matched with them by name, and label
            ``i`` is ``categories[i]``. Ids may differ; a category that the model does not know must not have
            annotations.
        check_images: decode every image before returning, so that a truncated one is found now and not in
            epoch 7. Without it, only their headers are read.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: the image folder does not exist.
        ValueError: images are missing or cannot be read, annotations are of a class that the model does not know, or
            there is nothing to tell apart for a classifier.
    """
    folder, table = locate_images(table)
    findings = list(table.findings)
    if categories is None:
        if table.bbox_xywh is None:
            _check_several_classes(table)
        categories = table.categories
        findings += find_unused_categories(table)
    else:
        labels, differences = _labels_of_model(table, categories)
        table = replace(table, labels=labels)
        findings += differences
    facts = _image_facts(table, folder, check_images=check_images, progress=progress)
    sizes = [one.size for one in facts]
    records, dropped = _records(table, folder, sizes)
    findings += _image_warnings(table, facts)
    findings += find_size_disagreements(table, sizes) + find_negative_areas(table, dropped)
    findings += [Finding(EMPTY_BOX, *names) for names in name_annotations(table, dropped)]
    return DetectionData(
        records=records,
        categories=tuple(categories),
        source=table.path,
        notes=tuple(f"{table.path}: {note}" for note in (*table.notes, *summarize(findings))),
        findings=tuple(findings),
        facts=tuple(facts),
    )


def _image_facts(
    table: Annotations, folder: Path, *, check_images: bool, progress: ProgressCallback | None
) -> list[ImageFacts]:
    names = [image.file_name for image in table.images if image.source is None]
    inspected = inspect_images(folder, names, decode=check_images, progress=progress) if names else []
    facts = iter(require_readable(folder, inspected))
    return [
        next(facts) if image.source is None or image.size is None else ImageFacts(*image.size) for image in table.images
    ]


def _image_warnings(table: Annotations, facts: list[ImageFacts]) -> tuple[Finding, ...]:
    """List what was repaired in images, or costs accuracy; the rest of their findings is in the facts alone."""
    return tuple(
        finding
        for image, one in zip(table.images, facts, strict=True)
        if one.findings
        for finding in one.name_findings(image.file_name)
        if finding.kind.severity == "warning"
    )


def _records(table: Annotations, folder: Path, sizes: list[tuple[int, int]]) -> tuple[tuple[Record, ...], list[int]]:
    """Return a record per image, and the rows of the annotations that were dropped."""
    order = np.argsort(table.image_index, kind="stable")
    bounds = np.searchsorted(table.image_index[order], np.arange(1, len(table.images)))
    records, dropped = [], []
    for image, size, rows in zip(table.images, sizes, np.split(order, bounds), strict=True):
        record = _record(table, folder, image, size, rows)
        x1, y1, x2, y2 = record.boxes().T
        keep = (x2 > x1) & (y2 > y1)
        if not keep.all():
            dropped += rows[~keep].tolist()
            record = _record(table, folder, image, size, rows[keep])
        records.append(record)
    return tuple(records), dropped


def _record(
    table: Annotations, folder: Path, image: ListedImage, size: tuple[int, int], rows: Int64[np.ndarray, " n"]
) -> Record:
    height, width = size
    bbox_xywh = _boxes(table, size, rows)
    unit = height * width if table.has_fractions else 1
    folders = (folder, *table.mask_folders)
    entries = [table.segmentations[row] for row in rows] if table.segmentations else []
    return Record(
        image_id=image.id,
        path=folder / image.file_name if image.source is None else Path(image.file_name),
        height=height,
        width=width,
        labels=table.labels[rows],
        bbox_xywh=bbox_xywh,
        area=bbox_xywh[:, 2] * bbox_xywh[:, 3] if table.area is None else table.area[rows] * unit,
        crowd=np.zeros(len(rows), dtype=np.bool_) if table.crowd is None else table.crowd[rows],
        annotation_ids=tuple(_annotation_id(table, row) for row in rows.tolist()),
        segmentations=tuple(_segmentation(table, entry, folders, size) for entry in entries),
        source=image.source,
    )


def _boxes(table: Annotations, size: tuple[int, int], rows: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, "n 4"]:
    height, width = size
    if table.bbox_xywh is None:
        return np.array([[0.0, 0.0, width, height]]).repeat(len(rows), axis=0)
    boxes: Float64[np.ndarray, "n 4"] = table.bbox_xywh[rows]
    return boxes * np.array([width, height, width, height], dtype=np.float64) if table.has_fractions else boxes


def _segmentation(table: Annotations, entry: Any, folders: tuple[Path, ...], size: tuple[int, int]) -> Any:
    if isinstance(entry, str):
        return MaskFile(entry, folders, *size)
    if table.has_fractions and isinstance(entry, list):
        height, width = size
        return [(np.array(part).reshape(-1, 2) * (width, height)).ravel().tolist() for part in entry]
    return entry


def _annotation_id(table: Annotations, row: int) -> int:
    return row + 1 if table.annotation_ids is None else table.annotation_ids[row]


def _labels_of_model(
    table: Annotations, categories: Sequence[Category]
) -> tuple[Int64[np.ndarray, " n"], list[Finding]]:
    """Return the table's labels as indices into a model's categories, matched by name, and the differences."""
    label_of = {_compose_accents(category.name): label for label, category in enumerate(categories)}
    label_of |= {category.name: label for label, category in enumerate(categories)}
    matches = (label_of.get(one.name, label_of.get(_compose_accents(one.name), -1)) for one in table.categories)
    lookup = np.fromiter(matches, dtype=np.int64, count=len(table.categories))
    labels = lookup[table.labels]
    unknown = np.unique(table.labels[labels < 0])
    if unknown.size:
        names = [repr(table.categories[label].name) for label in unknown]
        known = [repr(category.name) for category in categories]
        raise ValueError(
            f"{table.path}: {len(names)} of its categories with annotations are unknown to the model: "
            f"{first_names(names, 5)}; the model knows {len(known)}: {first_names(known, 5)}; "
            "use the data set that it was trained on, or train a model for this one"
        )
    return labels, find_category_differences(table, categories, lookup)


def _compose_accents(name: str) -> str:
    """Return a name in Unicode's form NFC: some systems write an accent as a letter of its own."""
    return unicodedata.normalize("NFC", name)


def _check_several_classes(table: Annotations) -> None:
    used = np.unique(table.labels)
    if len(used) < 2:
        what = f"only one class has images, {table.categories[used[0]].name!r}" if len(used) else "no class has images"
        notes = "".join(f"; {note}" for note in table.notes)
        raise ValueError(
            f"{table.path}: {what}, and a classifier tells at least two apart; add images of another class{notes}"
        )
