"""Parts of images as RGB: cut out of an image in memory, or read from a large file without the rest of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from boxwright_runtime.image_file import image_errors
from boxwright_runtime.images import as_rgb, decode_rgb
from boxwright_runtime.tiles import SmallImage, Tile

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

RASTER_SUFFIXES = {".tif", ".tiff", ".jp2", ".j2k", ".jpx"}
"""Suffixes, in lower case, of files that may be read in parts."""

LARGE = 1 << 26
"""Pixels from which on files of such suffixes are read in parts: 200 MB of RGB."""


class ImageWindows(Protocol):
    """An image of which parts can be read."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width), upright."""

    def read(self, tile: Tile) -> UInt8[np.ndarray, "h w 3"]:
        """Read a part."""

    def read_whole(self) -> SmallImage:
        """Read the whole, smaller where it is too large for the memory."""


class _InMemory:
    def __init__(self, rgb: UInt8[np.ndarray, "h w 3"]) -> None:
        self._rgb = rgb
        self.size = (rgb.shape[0], rgb.shape[1])

    def read(self, tile: Tile) -> UInt8[np.ndarray, "h w 3"]:
        return self._rgb[tile.top : tile.bottom, tile.left : tile.right]

    def read_whole(self) -> SmallImage:
        return SmallImage(self._rgb, 1.0)


@contextmanager
def open_windows(image: Any) -> Iterator[ImageWindows]:
    """Open an image, to read parts of it.

    Files of GeoTIFF, TIFF and JPEG 2000 with more than 67 million pixels are read in parts by rasterio, where that is
    installed (``pip install boxwright[large]``); all others are read as a whole.

    Args:
        image: as ``Detector.predict`` takes one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or too large for Pillow, and rasterio is not there.
    """
    if not isinstance(image, str | Path):
        encoded = isinstance(image, bytes | bytearray | memoryview | io.IOBase)
        yield _InMemory(decode_rgb(_load(image)) if encoded else as_rgb(image))
        return
    path = Path(image)
    if not reads_in_parts(path):
        yield _InMemory(as_rgb(path))
        return
    from boxwright_runtime.raster_file import RasterFile

    with image_errors(path):
        raster = RasterFile(path)
    try:
        yield raster
    finally:
        raster.close()


def reads_in_parts(path: Path) -> bool:
    """Tell whether a file is read in parts: it is large, of a suitable kind, and rasterio is installed."""
    if path.suffix.lower() not in RASTER_SUFFIXES or find_spec("rasterio") is None:
        return False
    from boxwright_runtime.raster_file import count_pixels

    return count_pixels(path) > LARGE


def _load(image: Any) -> bytes:
    return cast(bytes, image.read()) if isinstance(image, io.IOBase) else bytes(image)
