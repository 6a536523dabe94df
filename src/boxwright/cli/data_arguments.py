"""Options of commands that name the files of a data set."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from boxwright.workflows.reading import DataFiles


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
