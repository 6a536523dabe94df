"""``boxwright crop``: from a data set for detection to one for classification."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import add_format_argument, add_split_arguments, files_of, split_files
from boxwright.cli.terminal import show

_SPLITS = ("train", "val")
"""Splits whose files can be typed one by one, as for training."""


def run(argv: Sequence[str]) -> int:
    """Cut, and say how many images each class has; return the exit status."""
    options = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.crop import crop

    cuts = crop(
        files_of(options, {split: split_files(options, split) for split in _SPLITS}),
        options.out,
        margin=options.margin,
        min_size=options.min_size,
        observer=ConsoleObserver(),
    )
    for split, cut in cuts.items():
        counts = ", ".join(f"{name} {count:,}" for name, count in cut.counts.items())
        small = f"; {cut.too_small:,} objects below {options.min_size} pixels left out" if cut.too_small else ""
        show(f"{Path(options.out) / split}: {sum(cut.counts.values()):,} images ({counts}){small}")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read what was typed, and check it as far as it can be without the files that are read."""
    parser = CommandParser(
        "crop",
        description="Cut every object out of a data set for detection, as a square image in OUT/SPLIT/CLASS: data\n"
        "for a classifier.",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the data set, in any known format")
    for split in _SPLITS:
        add_split_arguments(parser, split)
    add_format_argument(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="a folder that does not exist or is empty")
    parser.add_argument(
        "--margin",
        metavar="FRACTION",
        type=float,
        default=0.1,
        help="around an object, as a fraction of its longer side (default: 0.1)",
    )
    parser.add_argument(
        "--min-size",
        metavar="N",
        type=int,
        default=8,
        help="shorter side of an object at least, in pixels (default: 8)",
    )
    options = parser.parse(argv)
    if options.data is None and not any(split_files(options, split)[0] for split in _SPLITS):
        parser.error("which data set? give --data DIR, or --train-annotations FILE and --train-images DIR")
    return options
