"""How commands are told where the data set is, and how they read it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from boxwright.data.readers.class_folders import has_split, open_class_folders
from boxwright.data.readers.coco import open_data, splits
from boxwright.data.records import DetectionData
from boxwright.structures import Category, Task

MANY_IMAGES = 2000


def read_split(
    console: Console,
    split: str,
    data: str | None,
    *,
    annotations: str | None = None,
    images: str | None = None,
    categories: Sequence[Category] | None = None,
    task: Task = "detection",
) -> DetectionData:
    """Read and check a split, with a progress bar where that takes a while, and print what was dropped or repaired.

    For classification that is a folder per class in ``data``.
    """
    if task == "detection" and data is not None and annotations is None:
        _check_not_of_classes(Path(data), split)
    if task == "classification" and (data is None or annotations is not None or images is not None):
        raise ValueError("a classifier has no annotation files: give --data DIR, with DIR/train/CLASS/*.jpg")
    columns = (TextColumn(f"checking {split}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(split, total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(line, completed=done, total=total, visible=total >= MANY_IMAGES)

        if task == "classification":
            assert data is not None
            found = open_class_folders(Path(data), split, categories=categories, progress=show)
        else:
            found = open_data(
                Path(data) if data is not None else None,
                split,
                annotations=annotations,
                images=images,
                categories=categories,
                progress=show,
            )
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    return found


def _check_not_of_classes(data: Path, split: str) -> None:
    """Raise ``ValueError`` for a data set with a folder per class and no annotation file."""
    if data.is_dir() and not splits(data) and has_split(data, split):
        raise ValueError(
            f"{data}: no annotation file, but folders in the split {split}: if they are classes, the data is for a "
            "classifier, like resnet18_classifier"
        )


def add_split_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """``--SPLIT-annotations`` and ``--SPLIT-images``, for data sets in no layout that is known."""
    parser.add_argument(
        f"--{split}-annotations",
        metavar="FILE",
        help=f"the {split} split's annotation file, instead of --data's",
    )
    parser.add_argument(f"--{split}-images", metavar="DIR", help=f"the {split} split's images, instead of --data's")
