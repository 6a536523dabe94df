"""Tiles of large images, and the whole beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


@dataclass(frozen=True, kw_only=True)
class TileOptions:
    """Size and overlap of the tiles in which large images are predicted.

    Args:
        size: side of a tile in pixels of the image. Tiles are predicted like images of that size.
        overlap: fraction of a tile's side that its neighbor covers too, at least; objects of up to that size are seen
            whole by some tile.
        whole: also predict the whole image at once, for objects that no tile holds.

    Raises:
        ValueError: the size is below 32, or the overlap outside [0, 0.9].
    """

    size: int
    overlap: float = 0.2
    whole: bool = True

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ValueError(f"tiles have sides of at least 32 pixels, not {self.size}")
        if not 0 <= self.overlap <= 0.9:
            raise ValueError(f"tiles overlap by a fraction of their side between 0 and 0.9, not {self.overlap}")


class Tile(NamedTuple):
    """A part of an image, in its pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left


class SmallImage(NamedTuple):
    """The whole of an image, perhaps smaller.

    Args:
        pixels: RGB.
        scale: sides of it by those of the image, at most 1.
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    scale: float


def cut_tiles(height: int, width: int, options: TileOptions) -> list[Tile]:
    """List the tiles of an image, row by row.

    They have one size, cover the image evenly and overlap by at least what is asked for: none is a sliver. An image
    that is shorter than a tile is covered by tiles of its own height, a narrower one likewise.

    Args:
        height: of the image in pixels.
        width: likewise.
        options: the size of the tiles and their overlap.
    """
    rows, columns = (_cut_side(length, options) for length in (height, width))
    return [Tile(left, top, right, bottom) for top, bottom in rows for left, right in columns]


def _cut_side(length: int, options: TileOptions) -> list[tuple[int, int]]:
    size = min(options.size, length)
    step, rest = max(1, int(options.size * (1 - options.overlap))), length - size
    steps = -(-rest // step)
    # Rounded down, neighbors are apart by a step at most.
    starts = [0] if not steps else [i * rest // steps for i in range(steps + 1)]
    return [(start, start + size) for start in starts]
