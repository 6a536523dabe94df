"""TIFF, GeoTIFF and JPEG 2000 read in parts, by rasterio."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import rasterio
from PIL import TiffImagePlugin
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from boxwright_runtime.image_file import image_errors, open_file
from boxwright_runtime.sample_range import sample_depth, scale_to_bytes
from boxwright_runtime.tiles import SmallImage, Tile

if TYPE_CHECKING:
    from jaxtyping import UInt8

MAX_WHOLE = 4096
"""Longest side of the whole image, made smaller, in pixels."""

_CACHE_MB = 128

_ORIENTATION = 274

_COLORS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def count_pixels(path: Path) -> int:
    """Count the pixels of a file by its header; 0 where rasterio does not open it."""
    try:
        with open_file(path), open_raster(path) as file:
            return int(file.height * file.width)
    except (OSError, ValueError):  # rasterio's own errors are among these
        return 0


def open_raster(path: Path) -> Any:
    """Open a file with rasterio, without a warning where it has no coordinates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path)


class RasterFile:
    """A file of which parts are read.

    Pixels are those that ``read_image`` gives: samples of 16 bits scaled over the range that the whole file uses, which
    takes one pass over it at the beginning; transparent pixels on black.

    Args:
        path: of the file.

    Raises:
        Exception: it is damaged, turned by an orientation tag, or its bands are neither gray nor red, green and blue;
            see ``image_errors``.
    """

    def __init__(self, path: Path) -> None:
        _refuse_turned(path)
        self.path = path
        self._settings = rasterio.Env(GDAL_CACHEMAX=_CACHE_MB, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR")
        with self._settings:
            self._file = open_raster(path)
            self.size: tuple[int, int] = (self._file.height, self._file.width)
            self._bands, self._alpha = self._choose_bands()
            self._colors = self._read_palette()
            self._depth = self._measure_depth()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, tile: Tile) -> UInt8[np.ndarray, "h w 3"]:
        """Read a part."""
        height, width = tile.size
        with image_errors(self.path), self._settings:
            return self._read(window=Window(tile.left, tile.top, width, height))

    def read_whole(self) -> SmallImage:
        """Read the whole, with sides of 4,096 pixels at most, averaged."""
        scale = min(1.0, MAX_WHOLE / max(self.size))
        height, width = (max(1, round(side * scale)) for side in self.size)
        with image_errors(self.path), self._settings:
            # Colors of a palette have no mean.
            resampling = Resampling.nearest if self._colors is not None else Resampling.average
            return SmallImage(self._read(out_shape=(height, width), resampling=resampling), scale)

    def _choose_bands(self) -> tuple[list[int], int | None]:
        """Bands of gray, of a palette or of red, green and blue; and that of transparency."""
        colors = self._file.colorinterp
        alpha = colors.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colors else None
        if all(color in colors for color in _COLORS):
            return [colors.index(color) + 1 for color in _COLORS], alpha
        others = [band for band in self._file.indexes if band != alpha]
        if len(others) == 1:
            return others, alpha
        raise ValueError(f"it has {len(others)} bands, and none of them is said to be red, green or blue")

    def _read_palette(self) -> UInt8[np.ndarray, "c 3"] | None:
        if self._file.colorinterp[self._bands[0] - 1] != ColorInterp.palette:
            return None
        palette = self._file.colormap(self._bands[0])
        colors = np.zeros((256, 3), dtype=np.uint8)
        for index, color in palette.items():
            colors[index] = color[:3]
        return colors

    def _measure_depth(self) -> int:
        """Bits of the samples, see ``sample_depth``; a band at a time, a block at a time."""
        kind = np.dtype(self._file.dtypes[self._bands[0] - 1])
        if kind == np.uint8:
            return 8
        if kind.kind not in "iu":
            raise ValueError("its pixels are floats of unknown range; save it with 8 or 16 bits")
        extremes: list[Any] = []
        for _, window in self._file.block_windows(self._bands[0]):
            block = self._file.read(self._bands, window=window)
            extremes += [block.min(), block.max()]
        return sample_depth(np.array(extremes))

    def _read(self, **where: Any) -> UInt8[np.ndarray, "h w 3"]:
        if "out_shape" in where:
            where = {**where, "out_shape": (len(self._bands), *where["out_shape"])}
        samples = self._file.read(self._bands, **where)
        if self._colors is not None:
            rgb: npt.NDArray[np.uint8] = self._colors[samples[0]]
        else:
            pixels = samples.transpose(1, 2, 0)
            pixels = pixels if self._depth == 8 and pixels.dtype == np.uint8 else scale_to_bytes(pixels, self._depth)
            rgb = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        if self._alpha is None:
            return rgb
        if "out_shape" in where:
            where = {**where, "out_shape": where["out_shape"][1:]}
        return self._on_black(rgb, self._file.read(self._alpha, **where))

    def _on_black(self, rgb: UInt8[np.ndarray, "h w 3"], alpha: Any) -> UInt8[np.ndarray, "h w 3"]:
        full = np.iinfo(alpha.dtype).max
        weighted = rgb.astype(np.uint32) * alpha[..., None]
        return np.asarray((weighted + full // 2) // full, dtype=np.uint8)


def _refuse_turned(path: Path) -> None:
    """Refuse a TIFF whose rows are not from top to bottom and from left to right."""
    with open_file(path) as file:
        header = file.read(16)
        if header[:2] not in (b"II", b"MM"):
            return
        big = header[2:4] in (b"+\0", b"\0+")
        directory = TiffImagePlugin.ImageFileDirectory_v2(header if big else header[:8])
        file.seek(directory.next)
        directory.load(file)
        if directory.get(_ORIENTATION, 1) != 1:
            raise ValueError(
                "it is turned by its orientation tag, and too large to be read as a whole: save it upright"
            )
