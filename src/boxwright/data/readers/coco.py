"""COCO: annotations/train.json, annotations/instances_train2017.json or train/_annotations.coco.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boxwright.data.annotations import Annotations
from boxwright.data.readers._claimed_paths import find_rivals
from boxwright.data.readers._coco_file import parse_coco
from boxwright.data.readers._coco_layouts import find_all_files, find_files, find_unread_files
from boxwright.data.table_memory import remember_table
from boxwright.structures import Task

TASK: Task = "detection"


def recognizes(folder: Path) -> bool:
    """Return True where the folder has an annotation file in one of the known layouts."""
    return bool(find_all_files(folder))


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first."""
    return list(find_all_files(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split.

    Raises:
        ValueError: there is no such split, or its annotation file is broken or contradicts itself.
    """
    files = find_files(folder, split)
    table = _read(files.annotations, files.image_folders)
    rivals = find_rivals(folder, split, files.annotations, files.others)
    return replace(table, findings=(*rivals, *table.findings)) if rivals else table


def unread_files(folder: Path) -> list[Path]:
    """List the annotation files that belong to no split; of other files, only the beginning is read."""
    return find_unread_files(folder)


def read_file(annotations: Path) -> Annotations:
    """Read an annotation file outside the known layouts; the images are beside it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is broken or contradicts itself.
    """
    return _read(annotations, (annotations.parent,))


def _read(path: Path, image_folders: tuple[Path, ...]) -> Annotations:
    return remember_table(path, image_folders, lambda: parse_coco(path, image_folders))
