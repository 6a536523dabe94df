"""Network inputs in NumPy and Pillow, for exported files that have no preprocessing inside.

Compared with torch's in ``boxwright.data.images``: bytes resized with antialiasing differ by at most a level (up to 2 %
of the pixels), those resized without it do not, and floats by less than a tenth of a level.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from boxwright_runtime.input_format import InputFormat, Resampling
from boxwright_runtime.opencv_resize import resize_as_opencv

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64, UInt8


def make_network_input(image: UInt8[np.ndarray, "h w 3"], input_format: InputFormat) -> Float32[np.ndarray, "3 _h _w"]:
    """Resize and normalize an image for a network; it is not padded."""
    height, width = image.shape[:2]
    # Edges of windows in prediction are whole pixels of the image.
    left, top, right, bottom = (int(edge) for edge in input_format.window(height, width))
    part = np.ascontiguousarray(image[top:bottom, left:right])
    resized = _resize(part, *input_format.input_size(height, width), input_format.resampling)
    mean, std = (np.array(values, dtype=np.float32) for values in (input_format.mean, input_format.std))
    if resized.dtype == np.uint8:
        # One result for each byte and channel: the same numbers as of the pixels one by one, in half the time.
        levels = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / std
        channels = [levels[:, c].take(resized[..., c]) for c in range(3)]
    else:
        normalized = (resized / np.float32(255) - mean) / std
        channels = [normalized[..., c] for c in range(3)]
    return np.stack(channels[::-1] if input_format.channel_order == "bgr" else channels)


def _resize(
    image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int, resampling: Resampling
) -> UInt8[np.ndarray, "{height} {width} 3"] | Float32[np.ndarray, "{height} {width} 3"]:
    if not resampling.floats:
        if not resampling.antialias:
            return resize_as_opencv(image, height, width)
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    if not resampling.antialias:
        return _interpolate(image, height, width)
    channels = (Image.fromarray(image[..., c].astype(np.float32)) for c in range(3))
    resized = [np.asarray(one.resize((width, height), Image.Resampling.BILINEAR)) for one in channels]
    return np.stack(resized, axis=-1)


def _interpolate(
    image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int
) -> Float32[np.ndarray, "{height} {width} 3"]:
    """Resize to floats; each pixel is made of the nearest four, even where the image becomes much smaller."""
    above, below, down = _find_neighbors(image.shape[0], height)
    left, right, across = _find_neighbors(image.shape[1], width)
    needed, inverse = np.unique(np.concatenate((above, below)), return_inverse=True)
    rows = image[needed].astype(np.float32)
    widened = rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None]
    resized = widened[inverse[:height]] * (1 - down)[:, None, None]
    resized += widened[inverse[height:]] * down[:, None, None]
    return np.asarray(resized, dtype=np.float32)


def _find_neighbors(
    length: int, resized: int
) -> tuple[Int64[np.ndarray, " {resized}"], Int64[np.ndarray, " {resized}"], Float32[np.ndarray, " {resized}"]]:
    """Find the two pixels of a side that each resized one lies between, and the weight of the second."""
    scale = np.float32(length) / np.float32(resized)
    position = np.maximum((np.arange(resized, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    first = np.minimum(position.astype(np.int64), length - 1)
    return first, np.minimum(first + 1, length - 1), position.astype(np.float32) - first.astype(np.float32)
