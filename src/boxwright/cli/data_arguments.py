"""How commands are told where the data set is, and how they read it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from boxwright.data.open import open_data
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
    columns = (TextColumn(f"checking {split}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(split, total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(line, completed=done, total=total, visible=total >= MANY_IMAGES)

        found = open_data(
            data,
            split,
            task=task,
            annotations=annotations,
            images=images,
            categories=categories,
            progress=show,
        )
    for note in found.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    return found


def add_split_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """``--SPLIT-annotations`` and ``--SPLIT-images``, for data sets in no layout that is known."""
    parser.add_argument(
        f"--{split}-annotations",
        metavar="FILE",
        help=f"the {split} split's annotation file, instead of --data's",
    )
    parser.add_argument(f"--{split}-images", metavar="DIR", help=f"the {split} split's images, instead of --data's")
