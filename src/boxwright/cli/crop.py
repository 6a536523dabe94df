"""``boxwright crop``: from a data set for detection to one for classification."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import read_split
from boxwright.cli.writing import check_folder
from boxwright.data.coco import splits
from boxwright.data.object_crops import check_crop, crop_objects


def run(argv: Sequence[str]) -> int:
    """The command; returns its exit status."""
    parser = CommandParser(
        "crop",
        description="Cut every object out of a data set in COCO format, as a square picture in OUT/SPLIT/CLASS: data\n"
        "for a classifier.",
    )
    parser.add_argument("--data", metavar="DIR", required=True, help="data set: annotations/train.json + images/, ...")
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
    out = Path(options.out)
    check_folder(out)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and is not overwritten: give another --out")
    check_crop(options.margin, options.min_size)
    found_splits = splits(Path(options.data))
    if not found_splits:
        raise ValueError(
            f"{options.data}: no annotation file of any split; what is cut is a data set in COCO format, with "
            "annotations/train.json or a like layout"
        )
    console = Console(stderr=True)
    data = {split: read_split(console, split, options.data) for split in found_splits}
    for split, found in data.items():
        columns = (TextColumn(f"cutting {split}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(split, total=len(found.records))
            cut = crop_objects(
                found,
                out / split,
                margin=options.margin,
                min_size=options.min_size,
                progress=lambda done, bar=bar, task=task: bar.update(task, completed=done),  # type: ignore[misc]
            )
        counts = ", ".join(f"{name} {count:,}" for name, count in cut.counts.items())
        small = f"; {cut.too_small:,} objects below {options.min_size} pixels left out" if cut.too_small else ""
        print(f"{out / split}: {sum(cut.counts.values()):,} pictures ({counts}){small}")
    return 0
