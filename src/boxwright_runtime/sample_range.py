"""Samples of more than 8 bits on their way to bytes."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras, scanners and microscopes have."""

_LOW_BYTES = {"B": "L", "L": "B"}


def sample_depth(samples: npt.NDArray[Any]) -> int:
    """Return the bits that samples of up to 16 bits have, by the largest: the first of ``DEPTHS`` that holds it.

    The steps are coarse so that two files of one camera, a bright and a dark one, are likely to get the same.

    Raises:
        ValueError: a sample is negative or has more than 16 bits.
    """
    if samples.min() < 0 or samples.max() > 65535:
        raise ValueError("its pixels do not fit into 16 bits; save it with 8 or 16 bits")
    return next(depth for depth in DEPTHS if samples.max() < 1 << depth)


def scale_samples(samples: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], int]:
    """Scale samples of up to 16 bits from the range that they use to bytes.

    Args:
        samples: (h, w), or (h, w, c) with transparency, which has a range of its own, the last of 2 or 4 channels.

    Returns:
        the bytes, and the depth that was taken for the range.

    Raises:
        ValueError: a sample is negative or has more than 16 bits.
    """
    if samples.ndim == 3 and samples.shape[2] % 2 == 0:
        colors, alpha = samples[..., :-1], samples[..., -1:]
        depth = sample_depth(colors)
        return np.concatenate(
            (scale_to_bytes(colors, depth), scale_to_bytes(alpha, sample_depth(alpha))), axis=2
        ), depth
    depth = sample_depth(samples)
    return scale_to_bytes(samples, depth), depth


def wide_samples(image: Image.Image, data: bytes) -> npt.NDArray[np.uint16] | None:
    """Return the 16-bit samples of a color image, of which Pillow gives only the high bytes.

    Args:
        image: opened, not yet loaded.
        data: its file.

    Returns:
        (h, w, c), transparency the last of 2 or 4 channels; None for an image of other samples.
    """
    rawmode = _rawmode(image)
    if rawmode == "LA;16B":  # four bytes a pixel, the high ones first, like those of RGBA
        gray_high, gray_low, alpha_high, alpha_low = np.moveaxis(_decode_as(data, "RGBA").astype(np.uint16), 2, 0)
        gray, alpha = gray_high << 8 | gray_low, alpha_high << 8 | alpha_low
        return np.stack((gray, alpha), axis=2).astype(np.uint16)
    if image.mode not in ("RGB", "RGBA", "RGBX") or not rawmode.startswith(("RGB;16", "RGBA;16", "RGBX;16")):
        return None
    order = rawmode[-1] if rawmode[-1] in _LOW_BYTES else ("L" if sys.byteorder == "little" else "B")
    low = _decode_as(data, rawmode[:-1] + _LOW_BYTES[order])
    return (np.asarray(image).astype(np.uint16) << 8 | low).astype(np.uint16)


def _decode_as(data: bytes, rawmode: str) -> npt.NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        image.tile = [_with_rawmode(tile, rawmode) for tile in image.tile]
        return np.asarray(image)


def _rawmode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else None
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else ""


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    args = (rawmode, *tile[3][1:]) if isinstance(tile[3], tuple) else rawmode
    # Pillow's own tuple, whose fields its decoder of TIFF reads by their names; before Pillow 11 a plain one.
    return (*tile[:3], args) if type(tile) is tuple else type(tile)(*tile[:3], args)


def scale_to_bytes(samples: npt.NDArray[Any], depth: int) -> npt.NDArray[np.uint8]:
    """Scale samples of some bits to bytes."""
    full = (1 << depth) - 1
    return np.asarray((samples.astype(np.uint32) * 255 + full // 2) // full, dtype=np.uint8)
