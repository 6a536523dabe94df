"""Options of commands that name the files of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

from boxwright.cli.compute_arguments import add_compute_arguments

if TYPE_CHECKING:
    from boxwright.workflows.reading import DataFiles


_DATA_HELP = "folder of the data set, in any known format, or of val/CLASS/"


def add_measured_data_arguments(parser: argparse.ArgumentParser, data_help: str = _DATA_HELP) -> None:
    """Add the options of commands that measure models on one split: its files, and how they are read.

    Args:
        parser: of the command.
        data_help: on ``--data``.
    """
    parser.add_argument("--data", metavar="DIR", help=data_help)
    parser.add_argument("--split", default="val", help="which split of it (default: val)")
    parser.add_argument("--annotations", metavar="FILE", help="annotation file, instead of --data's")
    parser.add_argument("--images", metavar="DIR", help="images, instead of --data's")
    add_format_argument(parser)
    parser.add_argument("--batch-size", metavar="N", type=int, default=8, help="images at a time (default: 8)")
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="reading processes (default: 0)")
    add_compute_arguments(parser)


def check_measured_data(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Make sure that the options of ``add_measured_data_arguments`` name a data set; end in an error if not."""
    if options.data is None and options.annotations is None:
        parser.error("which data set? give --data DIR, or --annotations FILE and --images DIR")


def measured_files(options: argparse.Namespace) -> DataFiles:
    """Return the data set that the options of ``add_measured_data_arguments`` name."""
    return files_of(options, {options.split: (options.annotations, options.images)})


def add_split_arguments(parser: argparse.ArgumentParser, split: str) -> None:
    """Add ``--SPLIT-annotations`` and ``--SPLIT-images``, for data sets in no layout that is known."""
    parser.add_argument(
        f"--{split}-annotations",
        metavar="FILE",
        help=f"the {split} split's annotation file, instead of --data's",
    )
    parser.add_argument(f"--{split}-images", metavar="DIR", help=f"the {split} split's images, instead of --data's")


def add_format_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--data-format``, for a folder that is recognized as another format."""
    parser.add_argument(
        "--data-format", metavar="NAME", help="format of the data set; recognized by its files where left out"
    )


def split_files(options: argparse.Namespace, split: str) -> tuple[str | None, str | None]:
    """Return the annotation file and the image folder that were typed for a split."""
    return getattr(options, f"{split}_annotations"), getattr(options, f"{split}_images")


def files_of(options: argparse.Namespace, typed: Mapping[str, tuple[str | None, str | None]]) -> DataFiles:
    """Return the data set that was typed: ``--data``, and the annotation file and image folder of each split."""
    from boxwright.workflows.reading import DataFiles

    return DataFiles(
        folder=options.data,
        annotations={split: annotations for split, (annotations, _) in typed.items() if annotations is not None},
        images={split: images for split, (_, images) in typed.items() if images is not None},
        data_format=options.data_format,
    )
