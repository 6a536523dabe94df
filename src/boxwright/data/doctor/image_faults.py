"""Checks of images one by one: what was found out when they were read, and sizes and shapes that are rarely meant."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_inspection import IMAGE_GRAY, IMAGE_MISSING, IMAGE_UNREADABLE
from boxwright.data.mask_file import MaskFile
from boxwright.data.records import DetectionData, Record
from boxwright_runtime.image_file import SUFFIXES

TINY_IMAGE = FindingKind("tiny_image", "note", "images have a side below 32 pixels", "are they thumbnails?")
HUGE_IMAGE = FindingKind(
    "huge_image",
    "note",
    "images have a side over 8,000 pixels",
    "decoding them takes most of the time: cut them into tiles",
)
LONG_IMAGE = FindingKind(
    "long_image",
    "note",
    "images are over 8 times as long as wide",
    "squared, their objects are thin: cut them into parts",
)
BLANK_IMAGE = FindingKind("blank_image", "warning", "images are of almost one color, but have objects", "look at them")
UNLISTED_IMAGE = FindingKind(
    "unlisted_image", "note", "images in the folders are in no annotation file", "are their annotations missing?"
)

_TINY, _HUGE = 32, 8000
_LONG = 8.0
_LEAST_CONTRAST = 16


def find_image_faults(data: DetectionData, objects: ObjectTable, *, with_gray: bool) -> list[Finding]:
    """Find images that are worth a look.

    Args:
        data: a split.
        objects: of it.
        with_gray: name the images of one channel, as where others have three.
    """
    findings = _odd_sizes(objects)
    has_objects = np.bincount(objects.image_index, minlength=len(data.records)) > 0
    for index, facts in enumerate(data.facts):
        name = objects.names[index]
        findings += [
            one
            for one in facts.name_findings(name)
            # The others are among the findings of the data, which it was read with.
            if one.kind.severity == "note" and (with_gray or one.kind is not IMAGE_GRAY)
        ]
        # Few images have no hash: only of those the pixels are worth another look.
        if facts.digest is not None and facts.dhash is None and has_objects[index] and _is_blank(data.records[index]):
            findings.append(Finding(BLANK_IMAGE, name))
    return findings


def are_all_gray(splits: Iterable[DetectionData]) -> bool:
    """Return True where no image of a data set is known to have colors."""
    return all(facts.channels == 1 for data in splits for facts in data.facts)


def find_unlisted_images(splits: Mapping[str, DetectionData]) -> list[Finding]:
    """Find images beside those that are listed in any split; masks, and images that were dropped, are none."""
    records = [record for data in splits.values() for record in data.records if record.source is None]
    listed = {os.path.abspath(record.path) for record in records}
    listed |= _mask_paths(records)
    dropped = [
        f"/{one.subject}"
        for data in splits.values()
        for one in data.findings
        if one.kind in (IMAGE_MISSING, IMAGE_UNREADABLE)
    ]
    folders = sorted({os.path.dirname(os.path.abspath(record.path)) for record in records})
    common = os.path.commonpath(folders) if folders else ""
    findings = []
    for folder in folders:
        with os.scandir(folder) as entries:
            paths = {entry.path for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES and entry.is_file()}
        findings += [
            Finding(UNLISTED_IMAGE, os.path.relpath(path, common))
            for path in sorted(paths - listed)
            if not any(path.endswith(name) for name in dropped)
        ]
    return findings


def _mask_paths(records: list[Record]) -> set[str]:
    return {
        os.path.abspath(folder / segmentation.name)
        for record in records
        for segmentation in record.segmentations
        if isinstance(segmentation, MaskFile)
        for folder in segmentation.folders
    }


def _is_blank(record: Record) -> bool:
    try:
        return int(np.ptp(record.read())) < _LEAST_CONTRAST
    except (OSError, ValueError):  # gone since it was inspected
        return False


def _odd_sizes(objects: ObjectTable) -> list[Finding]:
    short, long = objects.sizes.min(1, initial=1 << 30), objects.sizes.max(1, initial=0)
    odd = {TINY_IMAGE: short < _TINY, HUGE_IMAGE: long > _HUGE, LONG_IMAGE: long > _LONG * short}
    return [
        Finding(kind, objects.names[index], "{} x {} pixels".format(*objects.sizes[index]))
        for kind, mask in odd.items()
        for index in np.flatnonzero(mask).tolist()
    ]
