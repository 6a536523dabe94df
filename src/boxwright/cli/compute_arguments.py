"""Options of commands that say where, how precisely and on which tiles a network predicts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from boxwright_runtime.tiles import TileOptions

if TYPE_CHECKING:
    from boxwright.devices import ComputeOptions


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ComputeOptions``."""
    add_device_arguments(parser)
    parser.add_argument(
        "--tiles",
        metavar="SIZE",
        type=read_size,
        help="cut large images into tiles with sides of SIZE pixels, and join what is in them",
    )
    parser.add_argument(
        "--overlap",
        metavar="FRACTION",
        type=read_overlap,
        help=f"of a tile that its neighbor covers too, at least (default: {TileOptions.overlap})",
    )
    parser.add_argument(
        "--tiles-only",
        action="store_true",
        help="leave out the look at the whole image, for objects that no tile holds",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the device and the precision alone."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto)")
    parser.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of a model's network; auto takes bfloat16 where the device multiplies it natively (default: auto)",
    )


def read_size(text: str) -> int:
    """Read the side of a tile."""
    try:
        return TileOptions(size=int(text)).size
    except ValueError:
        raise argparse.ArgumentTypeError(f"pixels of a tile's side, 32 or more, not {text!r}") from None


def read_overlap(text: str) -> float:
    """Read the overlap of tiles."""
    try:
        return TileOptions(size=32, overlap=float(text)).overlap
    except ValueError:
        raise argparse.ArgumentTypeError(f"a fraction between 0 and 0.9, not {text!r}") from None


def read_compute(options: argparse.Namespace, *, sides_std: bool = False) -> ComputeOptions:
    """Return the device, the precision and the tiles that were typed, and whether sides were asked for.

    Raises:
        ValueError: something about tiles was typed, but not their size.
    """
    from boxwright.devices import ComputeOptions

    tiles = None
    if options.tiles is not None:
        overlap = TileOptions.overlap if options.overlap is None else options.overlap
        tiles = TileOptions(size=options.tiles, overlap=overlap, whole=not options.tiles_only)
    elif options.overlap is not None or options.tiles_only:
        raise ValueError("--overlap and --tiles-only are about tiles: give their size too, --tiles SIZE")
    return ComputeOptions(options.device, options.precision, sides_std, tiles)
