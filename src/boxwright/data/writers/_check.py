"""Checks of data sets before and after they are written: nothing is written that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.open import find_reader
from boxwright.data.records import DetectionData
from boxwright.data.writers._target import check_splits, written_name

EMPTY_SPLIT_LEFT_OUT = FindingKind("empty_split_left_out", "warning", "splits without an image left out")


def filled_splits(splits: Mapping[str, DetectionData], findings: list[Finding]) -> dict[str, DetectionData]:
    """Return the splits that can be written; those without an image, which no reader accepts, are findings.

    Raises:
        ValueError: there is nothing to write, or a split has a name that no file can have.
    """
    check_splits(splits)
    filled = {name: data for name, data in splits.items() if len(data.records)}
    if not filled:
        raise ValueError(f"there is nothing to write: none of the splits {', '.join(splits)} has an image")
    if not any(data.categories for data in filled.values()):
        raise ValueError("there is nothing to write: the data has no class; no format is read without one")
    findings += [Finding(EMPTY_SPLIT_LEFT_OUT, name) for name in splits if name not in filled]
    return filled


def check_written(folder: Path, data_format: str, splits: Mapping[str, DetectionData], num_objects: int) -> None:
    """Read a written data set back, and compare splits, classes and the numbers of images and objects.

    Args:
        folder: that was written.
        data_format: its format.
        splits: that were written.
        num_objects: that were written, in all splits.

    Raises:
        ValueError: this format does not hold the data.
    """
    reader = find_reader(data_format)
    listed = reader.splits(folder) if reader.recognizes(folder) else []
    if len(listed) != len(splits):
        raise ValueError(
            f"the splits {', '.join(splits)} cannot be written as {data_format}: they would be read as "
            f"{', '.join(listed) or 'none'}; rename them"
        )
    count = 0
    for split, data in splits.items():
        try:
            table = reader.read(folder, split)
        except ValueError as error:
            reason = str(error).replace(f"{folder}{os.sep}", "")
            raise ValueError(f"the split {split!r} cannot be written as {data_format}: read back, {reason}") from error
        names = {written_name(category.name) for category in table.categories}
        missing = [category.name for category in data.categories if written_name(category.name) not in names]
        if missing:
            raise ValueError(f"the class {missing[0]!r} of {split} cannot be written as {data_format}; rename it")
        if len(table.images) != len(data.records):
            raise ValueError(
                f"the split {split!r} cannot be written as {data_format}: of {len(data.records):,} images, "
                f"{len(table.images):,} would be read"
            )
        count += len(table.image_index)
    if count != num_objects:
        raise ValueError(
            f"this data cannot be written as {data_format}: of {num_objects:,} objects, {count:,} would be read"
        )


def count_objects(splits: Mapping[str, DetectionData], *, crowds: bool = True) -> int:
    """Count the objects of all splits, with or without crowd regions."""
    records = (record for data in splits.values() for record in data.records)
    return sum(len(record.labels) if crowds else int((~record.crowd).sum()) for record in records)
