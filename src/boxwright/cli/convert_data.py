"""``boxwright convert-data``: a data set in another format."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from boxwright.cli.arguments import CommandParser
from boxwright.cli.data_arguments import add_format_argument
from boxwright.cli.terminal import show


def run(argv: Sequence[str]) -> int:
    """Convert, and say what was written and what the format does not hold; return the exit status."""
    options = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.data.findings import summarize
    from boxwright.workflows.convert_data import convert_data
    from boxwright.workflows.reading import DataFiles

    observer = ConsoleObserver()
    data = DataFiles(folder=options.data, data_format=options.data_format)
    converted = convert_data(data, options.out, to=options.to, copy=options.copy, observer=observer)
    for line in summarize(converted.written):
        observer.note(f"{options.out}: {line}")
    for split, (images, objects) in converted.counts.items():
        show(f"{options.out}: {split} {images:,} images, {objects:,} objects")
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "convert-data",
        description="Write a data set in another format. What that format cannot hold is listed.",
    )
    parser.add_argument("data", metavar="SRC", help="data set, in any format that is read")
    parser.add_argument("out", metavar="DST", help="a folder that does not exist or is empty")
    parser.add_argument("--to", metavar="FORMAT", required=True, help="coco, voc or yolo")
    parser.add_argument(
        "--copy", action="store_true", help="copy the images; else they are hard links to the same bytes, if possible"
    )
    add_format_argument(parser)
    return parser.parse(argv)
