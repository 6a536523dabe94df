"""Options of ``boxwright predict`` for any number of images, with results in one file a shard."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser

if TYPE_CHECKING:
    from boxwright.workflows.shard_folder import ShardedResults

_WITH_RESULTS = ("format", "shards", "resume", "engine")
_WITHOUT_RESULTS = ("json", "coco", "annotations")


def add_shard_arguments(parser: CommandParser) -> None:
    """Add ``--results`` and what goes with it."""
    parser.add_argument(
        "--results",
        metavar="DIR",
        help="for any number of images: write detections into a folder, one file a shard, and draw only where --out is "
        "given",
    )
    parser.add_argument(
        "--format",
        choices=("parquet", "coco"),
        help="of --results (default: parquet), a row an image; or COCO's results form",
    )
    parser.add_argument(
        "--shards", metavar="N", type=int, help="number of files of --results (default: one for a thousand images)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the --results of a run that was ended; else begin"
    )
    parser.add_argument(
        "--engine", choices=("local", "ray"), help="predict --results here, or on a Ray cluster (default: local)"
    )


def check_shard_arguments(parser: CommandParser, options: argparse.Namespace) -> None:
    """Raise ``ValueError`` for options that do not go together."""
    typed = _WITHOUT_RESULTS if options.results is not None else _WITH_RESULTS
    for name in typed:
        if getattr(options, name):
            parser.error(
                f"--{name} does not go with --results; see --format"
                if options.results is not None
                else f"--{name} is about --results: give --results DIR too"
            )
    if options.shards is not None and options.shards < 1:
        parser.error(f"--shards is at least 1, not {options.shards}")


def read_shard_options(options: argparse.Namespace) -> ShardedResults:
    """Return the folder of results that was typed."""
    from boxwright.workflows.shard_folder import ShardedResults

    return ShardedResults(options.results, options.format or "parquet", options.shards)
