"""Annotations without the images that cannot be read, for those who go on where training stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from boxwright.data.annotations import Annotations
from boxwright.data.file_names import likeliest_folder, locate_images, resolve_names
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_check import ProgressCallback, inspect_images
from boxwright.data.image_inspection import ImageFailure

UNCLEAR_FILE_NAME = FindingKind(
    "unclear_file_name",
    "error",
    "images whose names lead out of their folder, or may be those of several files",
    "correct the names, or restore the files",
)

_GONE = "not in the folder"
"""Reason of a name that is clear; looking for the file says that it is missing."""


def drop_unreadable(table: Annotations, progress: ProgressCallback | None = None) -> Annotations:
    """Take images that are missing or cannot be read out of a table, with their annotations; findings name them.

    Every image is decoded, and remembered, so that joining the table does not decode it again.

    Args:
        table: returned by a reader; not changed.
        progress: called as ``progress(done, total)``.

    Raises:
        FileNotFoundError: the image folder does not exist.
    """
    table = _drop_unclear(table)
    folder, table = locate_images(table)
    in_files = [index for index, image in enumerate(table.images) if image.source is None]
    names = [table.images[index].file_name for index in in_files]
    results = inspect_images(folder, names, progress=progress) if names else []
    failures = {index: one for index, one in zip(in_files, results, strict=True) if isinstance(one, ImageFailure)}
    return _without(table, {index: failure.finding() for index, failure in failures.items()})


def _drop_unclear(table: Annotations) -> Annotations:
    """Take images out whose names may be those of several files, or lead out of their folder."""
    in_files = [index for index, image in enumerate(table.images) if image.source is None]
    names = [table.images[index].file_name for index in in_files]
    folder = likeliest_folder(table.image_folders, names)
    missing = resolve_names(folder, names).missing if folder.is_dir() else {}
    unclear = {in_files[at]: Finding(UNCLEAR_FILE_NAME, names[at], why) for at, why in missing.items() if why != _GONE}
    return _without(table, unclear)


def _without(table: Annotations, causes: Mapping[int, Finding]) -> Annotations:
    """Return the table without some images and their objects, with a finding for each image."""
    if not causes:
        return table
    counts = np.bincount(table.image_index, minlength=len(table.images))
    findings = [_count_objects(finding, int(counts[index])) for index, finding in causes.items()]
    is_readable = np.ones(len(table.images), dtype=np.bool_)
    is_readable[list(causes)] = False
    rows = np.flatnonzero(is_readable[table.image_index])
    return replace(
        table,
        images=tuple(table.images[index] for index in np.flatnonzero(is_readable).tolist()),
        image_index=(np.cumsum(is_readable) - 1)[table.image_index[rows]],
        labels=table.labels[rows],
        bbox_xywh=None if table.bbox_xywh is None else table.bbox_xywh[rows],
        area=None if table.area is None else table.area[rows],
        crowd=None if table.crowd is None else table.crowd[rows],
        annotation_ids=None if table.annotation_ids is None else _select(table.annotation_ids, rows),
        segmentations=_select(table.segmentations, rows) if len(table.segmentations) else (),
        findings=(*table.findings, *findings),
    )


def _select(values: Any, rows: np.ndarray) -> tuple[Any, ...]:
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return tuple(listed[row] for row in rows.tolist())


def _count_objects(finding: Finding, num_objects: int) -> Finding:
    if not num_objects:
        return finding
    return finding._replace(detail=f"{finding.detail}; {num_objects} objects are dropped with it")
