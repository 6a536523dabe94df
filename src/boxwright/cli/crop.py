"""``boxwright crop``: from a data set for detection to one for classification."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import add_split_arguments, read_split
from boxwright.data.object_crops import Cut, check_crop, class_folder_names, crop_objects
from boxwright.data.open import list_splits
from boxwright.data.records import DetectionData
from boxwright.files import check_folder

_EXPLICIT = ("train", "val")
"""Splits whose files can be given one by one, as for training."""


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    options = _parsed(argv)
    out = Path(options.out)
    console = Console(stderr=True)
    data = {split: _read(console, split, options) for split in _splits(options)}
    for found in data.values():
        class_folder_names(found)
    for split, found in data.items():
        cut = _cut(console, split, found, options)
        counts = ", ".join(f"{name} {count:,}" for name, count in cut.counts.items())
        small = f"; {cut.too_small:,} objects below {options.min_size} pixels left out" if cut.too_small else ""
        print(f"{out / split}: {sum(cut.counts.values()):,} images ({counts}){small}")
    return 0


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """What was typed, checked as far as it can be without the files that are read."""
    parser = CommandParser(
        "crop",
        description="Cut every object out of a data set in COCO format, as a square image in OUT/SPLIT/CLASS: data\n"
        "for a classifier.",
    )
    parser.add_argument("--data", metavar="DIR", help="data set: annotations/train.json + images/, or a like layout")
    for split in _EXPLICIT:
        add_split_arguments(parser, split)
    parser.add_argument("--out", metavar="DIR", required=True, help="a folder that does not exist or is empty")
    parser.add_argument(
        "--margin",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="around an object, as a share of its longer side (default: 0.1)",
    )
    parser.add_argument(
        "--min-size",
        metavar="N",
        type=int,
        default=8,
        help="shorter side of an object at least, in pixels (default: 8)",
    )
    options = parser.parse(argv)
    if options.data is None and not any(_files(options, split)[0] for split in _EXPLICIT):
        parser.error("which data set? give --data DIR, or --train-annotations FILE and --train-images DIR")
    out = Path(options.out)
    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and is not overwritten: give another --out")
    check_crop(options.margin, options.min_size)
    return options


def _splits(options: argparse.Namespace) -> list[str]:
    """Those with paths of their own, and all of ``--data``."""
    explicit = [split for split in _EXPLICIT if any(_files(options, split))]
    if options.data is None:
        return explicit
    found = list_splits(Path(options.data))
    if not found and not explicit:
        raise ValueError(
            f"{options.data}: no annotation file of any split; what is cut is a data set in COCO format, with "
            "annotations/train.json or a like layout"
        )
    first = [split for split in _EXPLICIT if split in {*explicit, *found}]
    return list(dict.fromkeys([*first, *found]))


def _files(options: argparse.Namespace, split: str) -> tuple[str | None, str | None]:
    """The annotation file and the folder of images that were typed for a split."""
    return getattr(options, f"{split}_annotations", None), getattr(options, f"{split}_images", None)


def _read(console: Console, split: str, options: argparse.Namespace) -> DetectionData:
    annotations, images = _files(options, split)
    return read_split(console, split, options.data, annotations=annotations, images=images)


def _cut(console: Console, split: str, data: DetectionData, options: argparse.Namespace) -> Cut:
    columns = (TextColumn(f"cutting {split}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(split, total=len(data.records))
        return crop_objects(
            data,
            Path(options.out) / split,
            margin=options.margin,
            min_size=options.min_size,
            progress=lambda done: bar.update(task, completed=done),
        )
