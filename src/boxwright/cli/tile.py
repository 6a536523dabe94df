"""``boxwright tile``: from a data set of large images to one of tiles."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from boxwright.cli.arguments import CommandParser
from boxwright.cli.compute_arguments import read_overlap, read_size
from boxwright.cli.data_arguments import add_format_argument
from boxwright.cli.terminal import show
from boxwright_runtime.tiles import TileOptions

if TYPE_CHECKING:
    from boxwright.data.tiling import TiledData


def run(argv: Sequence[str]) -> int:
    """Cut, and say how many tiles and objects there are, and which objects were cut; return the exit status."""
    options = _parse(argv)
    from boxwright.cli.console import ConsoleObserver
    from boxwright.workflows.reading import DataFiles
    from boxwright.workflows.tile import LISTING, tile

    tiled = tile(
        DataFiles(folder=options.data, data_format=options.data_format),
        options.out,
        TileOptions(size=options.size, overlap=options.overlap),
        min_visible=options.min_visible,
        with_empty=not options.without_empty,
        observer=ConsoleObserver(),
    )
    for split, one in tiled.splits.items():
        show(f"{options.out}: {split} {_describe(one)}")
    show(f"where tiles lie, and what was cut: {tiled.folder / LISTING}")
    return 0


def _describe(tiled: TiledData) -> str:
    records = tiled.data.records
    objects = sum(int((~record.crowd).sum()) for record in records)
    cut = sum(len(image.cut) for image in tiled.images)
    line = f"{len(records):,} tiles, {objects:,} objects, {cut:,} times cut so far that they are crowd regions"
    if tiled.never_whole:
        line += f"; {len(tiled.never_whole):,} objects are so in every tile: take larger tiles"
    return f"{line}; {tiled.num_empty:,} tiles without objects left out" if tiled.num_empty else line


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = CommandParser(
        "tile",
        description="Cut the images of a data set into tiles, in COCO's layout, to train on. Objects that a tile cuts\n"
        "too far are crowd regions there, which training leaves alone, and are listed.",
    )
    parser.add_argument("data", metavar="SRC", help="data set, in any format that is read")
    parser.add_argument("out", metavar="DST", help="a folder that does not exist or is empty")
    parser.add_argument(
        "--size", metavar="SIZE", type=read_size, required=True, help="sides of the tiles, in pixels of the images"
    )
    parser.add_argument(
        "--overlap",
        metavar="FRACTION",
        type=read_overlap,
        default=TileOptions.overlap,
        help=f"of a tile that its neighbor covers too, at least (default: {TileOptions.overlap})",
    )
    parser.add_argument(
        "--min-visible",
        metavar="FRACTION",
        type=float,
        default=0.5,
        help="of an object's area that a tile shows at least; else it is a crowd region there (default: 0.5)",
    )
    parser.add_argument("--without-empty", action="store_true", help="leave out tiles without objects")
    add_format_argument(parser)
    options = parser.parse(argv)
    if not 0 <= options.min_visible <= 1:
        parser.error(f"--min-visible is between 0 and 1, not {options.min_visible}")
    return options
