"""Annotations of any format, joined with their images and matched with the classes of a model."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.annotations import Annotations
from boxwright.data.file_names import NUM_TRIED, exact_folder, locate_images
from boxwright.data.findings import Finding, summarize
from boxwright.data.image_check import ProgressCallback, first_names, inspect_images, require_files, require_readable
from boxwright.data.image_inspection import ImageFacts
from boxwright.data.join_findings import (
    find_category_differences,
    find_empty_boxes,
    find_negative_areas,
    find_size_disagreements,
    find_unused_categories,
    list_other_sizes,
)
from boxwright.data.listed_images import ListedImages, stated_sizes
from boxwright.data.packing import Ids, pack_ids, select_ids
from boxwright.data.record_table import RecordTable
from boxwright.data.records import DetectionData
from boxwright.data.segmentations import Segmentations
from boxwright.structures import Category

_CHUNK = 1_000_000


def join_images(
    table: Annotations,
    *,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    with_images: bool = True,
    progress: ProgressCallback | None = None,
) -> DetectionData:
    """Join a table of annotations with its images.

    Label ``i`` is the ``i``-th category of the table, with or without annotations, so that the classes of two splits
    have the same numbers. Images without annotations are kept. Annotations without area inside their image are
    dropped, with a note. An image's size is its own, after the EXIF rotation.

    Args:
        table: returned by a reader.
        categories: the classes of a model. The table's categories are matched with them by name, and label
            ``i`` is ``categories[i]``. Ids may differ; a category that the model does not know must not have
            annotations.
        check_images: decode every image before returning, so that a truncated one is found now and not in
            epoch 7; else images are not opened where the table states their sizes, which are checked when an
            image is read; of the others, only the headers are read.
        with_images: False for data whose images need not be there: they are as large as the table says.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: the image folder does not exist.
        ValueError: images are missing or cannot be read, annotations are of a class that the model does not know, or
            there is nothing to tell apart for a classifier.
    """
    folder = Path()
    if table.image_folders != (Path(),):  # paths of own samples are as they are
        folder, table = locate_images(table) if with_images else (_folder_of_any(table), table)
    findings, file_ids = list(table.findings), dict[int, int]()
    if categories is None:
        if table.bbox_xywh is None:
            _check_several_classes(table)
        categories = table.categories
        findings += find_unused_categories(table)
    else:
        lookup = _match_categories(table, categories)
        findings += find_category_differences(table, categories, lookup)
        file_ids = _file_ids(table, categories, lookup)
        table = replace(table, labels=lookup[table.labels])
    facts = _image_facts(table, folder, check_images=check_images, progress=progress) if with_images else []
    sizes = _sizes(table, facts)
    records, dropped = _records(table, folder, sizes)
    findings += _findings(table, facts, sizes, dropped, categories)
    with_dropped = np.flatnonzero(np.diff(dropped.starts))
    return DetectionData(
        records=records,
        categories=tuple(categories),
        source=table.path,
        notes=tuple(f"{table.path}: {note}" for note in (*table.notes, *summarize(findings))),
        findings=tuple(findings),
        facts=tuple(facts),
        dropped=dropped.select(with_dropped) if with_dropped.size else (),
        stated_sizes=list_other_sizes(table, sizes),
        file_ids=file_ids,
    )


def _folder_of_any(table: Annotations) -> Path:
    """Return the folder that has images of the table by their names; the working folder where none has."""
    names = [image.file_name for image in islice(table.images, NUM_TRIED) if image.source is None]
    return exact_folder(table.image_folders, names) or Path()


def _findings(
    table: Annotations,
    facts: list[ImageFacts],
    sizes: Int64[np.ndarray, "images 2"],
    dropped: RecordTable,
    categories: Sequence[Category],
) -> list[Finding]:
    """List what was found in images, and in annotations beside them."""
    return [
        *_image_warnings(table, facts),
        *find_size_disagreements(table, sizes),
        *find_negative_areas(table, dropped.rows),
        *find_empty_boxes(table, dropped, categories),
    ]


def _image_facts(
    table: Annotations, folder: Path, *, check_images: bool, progress: ProgressCallback | None
) -> list[ImageFacts]:
    """Look at the images; nothing is known of their files where the sizes that the table states are taken."""
    if not check_images and isinstance(table.images, ListedImages) and (table.images.sizes > 0).all():
        require_files(folder, table.images.names)
        return []
    names = [image.file_name for image in table.images if image.source is None]
    inspected = inspect_images(folder, names, decode=check_images, progress=progress) if names else []
    facts = iter(require_readable(folder, inspected))
    return [
        next(facts) if image.source is None or image.size is None else ImageFacts(*image.size) for image in table.images
    ]


def _sizes(table: Annotations, facts: list[ImageFacts]) -> Int64[np.ndarray, "images 2"]:
    """Return (height, width) of each image: its own, where it was looked at."""
    if not facts:
        sizes = stated_sizes(table.images)
        if unknown := int((sizes <= 0).any(1).sum()):
            raise ValueError(
                f"{table.path}: {unknown:,} of {len(sizes):,} images have no width and height; complete the file"
            )
        return sizes
    return np.array([one.size for one in facts], dtype=np.int64).reshape(-1, 2)


def _image_warnings(table: Annotations, facts: list[ImageFacts]) -> tuple[Finding, ...]:
    """List what was repaired in images, or costs accuracy; the rest of their findings is in the facts alone."""
    return tuple(
        finding
        for index, one in enumerate(facts)
        if one.findings
        for finding in one.name_findings(table.images[index].file_name)
        if finding.kind.severity == "warning"
    )


def _records(table: Annotations, folder: Path, sizes: Int64[np.ndarray, "images 2"]) -> tuple[RecordTable, RecordTable]:
    """Return the records of all images, and those of the annotations that were dropped."""
    index = table.image_index
    rows = np.arange(len(index)) if (index[1:] >= index[:-1]).all() else np.argsort(index, kind="stable")
    boxes = _boxes(table, sizes, rows)
    keep = _have_area(boxes, sizes, index[rows])
    ids = np.arange(1, len(index) + 1) if table.annotation_ids is None else table.annotation_ids
    ids = ids if isinstance(ids, np.ndarray) else pack_ids(ids)
    table = replace(table, segmentations=_pack_segmentations(table))
    dropped = _select_rows(table, folder, sizes, rows[~keep], boxes[~keep], ids)
    if len(dropped.rows):
        rows, boxes = rows[keep], boxes[keep]
    return _select_rows(table, folder, sizes, rows, boxes, ids), dropped


def _select_rows(
    table: Annotations,
    folder: Path,
    sizes: Int64[np.ndarray, "images 2"],
    rows: Int64[np.ndarray, " n"],
    boxes: Float64[np.ndarray, "n 4"],
    ids: Ids,
) -> RecordTable:
    """Return the records of all images with some of the annotations, sorted by image."""
    index = table.image_index
    is_whole = len(rows) == len(index) and bool((rows[1:] > rows[:-1]).all())
    every = slice(None) if is_whole else rows  # of arrays in order, nothing is copied
    return RecordTable(
        images=table.images,
        folder=folder,
        sizes=sizes,
        starts=np.searchsorted(index[every], np.arange(len(table.images) + 1)),
        rows=rows,
        labels=table.labels[every],
        bbox_xywh=boxes,
        area=_areas(table, sizes, boxes, every),
        crowd=np.zeros(len(rows), dtype=np.bool_) if table.crowd is None else table.crowd[every],
        annotation_ids=select_ids(ids, rows),
        segmentations=table.segmentations,
        mask_folders=table.mask_folders,
        has_fractions=table.has_fractions,
    )


def _boxes(
    table: Annotations, sizes: Int64[np.ndarray, "images 2"], rows: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 4"]:
    """Return the box of each row, in pixels."""
    if table.bbox_xywh is not None and not table.has_fractions:
        return table.bbox_xywh if len(rows) and (np.diff(rows) == 1).all() else table.bbox_xywh[rows]
    sides = sizes[table.image_index[rows]][:, ::-1].astype(np.float64)
    if table.bbox_xywh is None:
        return np.concatenate([np.zeros_like(sides), sides], axis=1)
    return np.asarray(table.bbox_xywh[rows] * np.concatenate([sides, sides], axis=1))


def _areas(
    table: Annotations, sizes: Int64[np.ndarray, "images 2"], boxes: Float64[np.ndarray, "n 4"], rows: Any
) -> Float64[np.ndarray, " n"]:
    """Return the area of each row, in square pixels."""
    if table.area is None:
        return np.asarray(boxes[:, 2] * boxes[:, 3])
    area: Float64[np.ndarray, " n"] = table.area[rows]
    return np.asarray(area * sizes[table.image_index[rows]].prod(axis=1)) if table.has_fractions else area


def _have_area(
    boxes: Float64[np.ndarray, "n 4"], sizes: Int64[np.ndarray, "images 2"], index: Int64[np.ndarray, " n"]
) -> Bool[np.ndarray, " n"]:
    """Tell which boxes have area inside their image, as ``Record.boxes`` has them."""
    keep = np.ones(len(boxes), dtype=np.bool_)
    for start in range(0, len(boxes), _CHUNK):
        part = slice(start, start + _CHUNK)
        limits = sizes[index[part]][:, ::-1]
        first = boxes[part, :2].clip(0, limits).astype(np.float32)
        second = (boxes[part, :2] + boxes[part, 2:]).clip(0, limits).astype(np.float32)
        keep[part] = (second > first).all(axis=1)
    return keep


def _pack_segmentations(table: Annotations) -> Sequence[Any]:
    if not len(table.segmentations) or isinstance(table.segmentations, Segmentations):
        return table.segmentations
    return Segmentations.pack(table.segmentations)


def _match_categories(table: Annotations, categories: Sequence[Category]) -> Int64[np.ndarray, " k"]:
    """Return the model's label of each category of a table, matched by name; -1 where it has none.

    Raises:
        ValueError: there are annotations of a category that the model does not know.
    """
    label_of = {_compose_accents(category.name): label for label, category in enumerate(categories)}
    label_of |= {category.name: label for label, category in enumerate(categories)}
    matches = (label_of.get(one.name, label_of.get(_compose_accents(one.name), -1)) for one in table.categories)
    lookup = np.fromiter(matches, dtype=np.int64, count=len(table.categories))
    unknown = np.unique(table.labels[lookup[table.labels] < 0])
    if unknown.size:
        names = [repr(table.categories[label].name) for label in unknown]
        known = [repr(category.name) for category in categories]
        raise ValueError(
            f"{table.path}: {len(names)} of its categories with annotations are unknown to the model: "
            f"{first_names(names, 5)}; the model knows {len(known)}: {first_names(known, 5)}; "
            "use the data set that it was trained on, or train a model for this one"
        )
    return lookup


def _file_ids(table: Annotations, categories: Sequence[Category], lookup: Int64[np.ndarray, " k"]) -> dict[int, int]:
    """Return the table's own id of each of the model's classes, by label, where the two differ."""
    if not table.has_category_ids:
        return {}
    pairs = zip(table.categories, lookup.tolist(), strict=True)
    return {label: own.id for own, label in pairs if label >= 0 and own.id != categories[label].id}


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
