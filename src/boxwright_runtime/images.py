"""Images in any of the usual forms as RGB, upright: the one reading."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from boxwright_runtime.arrays import Array, is_tensor, to_numpy
from boxwright_runtime.image_decoding import decode_image, load_upright, rgb_pixels
from boxwright_runtime.image_file import describe_error, image_errors, load_file
from boxwright_runtime.quiet_decoding import quiet_decoding
from boxwright_runtime.sample_range import scale_samples
from boxwright_runtime.stored_image import StoredImage

if TYPE_CHECKING:
    from jaxtyping import UInt8

ImageLike = str | Path | Image.Image | npt.NDArray[Any] | Any
"""The forms of an image that ``as_rgb`` takes; the last is a tensor of torch."""


def read_image(path: Path | str) -> UInt8[np.ndarray, "h w 3"]:
    """Read the image in a file as RGB, upright.

    The EXIF orientation is applied. Transparent pixels are laid on black, like the padding around an image.
    Samples of 16 bits are scaled to 8 over the range that they use, see ``sample_depth``. Of an animation, the first
    frame counts. A JPEG whose end is missing is read as far as it goes; the rest is gray.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, is truncated or damaged, has more pixels than Pillow's limit of 179 million,
            or has pixels whose range is unknown (32-bit floats).
    """
    with image_errors(path):
        return decode_rgb(load_file(path))


def decode_rgb(file: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decode the bytes of an image file as ``read_image`` does.

    Raises:
        Exception: Pillow raises anything on damaged files; see ``describe_error``.
    """
    return rgb_pixels(decode_image(file).image)


def as_rgb(image: ImageLike) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image in any of the usual forms to RGB, upright.

    Args:
        image: a file's path, or a ``StoredImage``; a PIL image of any mode (its EXIF orientation is applied, as for
            a file); an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), in RGB order; a tensor of shape
            (h, w), (1, h, w) or (3, h, w). Arrays and tensors hold uint8, floats in [0, 1], or uint16, which is scaled
            as in a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the image is none of these.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, StoredImage):
        with image_errors(image.name):
            return decode_rgb(image.load())
    if isinstance(image, Image.Image):
        try:
            with quiet_decoding():
                return rgb_pixels(load_upright(image).image)
        except Exception as error:  # PIL images decode late: whatever a decoder raises arrives here
            raise ValueError(f"this PIL image cannot be read: {describe_error(error)}") from error
    if isinstance(image, np.ndarray) or is_tensor(image):
        return _three_channels(_as_uint8(_channels_last(image)))
    raise ValueError(f"an image must be a path, a PIL image, an array or a tensor, not {type(image).__name__}")


def _channels_last(image: Array) -> npt.NDArray[Any]:
    """Return an array (h, w) or (h, w, c), from such an array or from a tensor (h, w) or (c, h, w)."""
    pixels = to_numpy(image)
    if is_tensor(image):
        fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] in (1, 3))
        pixels = pixels.transpose(1, 2, 0) if fits and pixels.ndim == 3 else pixels
    else:
        fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4))
    if not fits or 0 in pixels.shape:
        raise ValueError(
            "an array must have the shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4), a tensor (h, w), "
            f"(1, h, w) or (3, h, w); this {type(image).__name__} has {tuple(image.shape)}"
        )
    return pixels


def _as_uint8(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return scale_samples(pixels)[0]
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(f"an image must hold uint8, uint16, or floats in [0, 1]; this one holds {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"an image of floats must lie in [0, 1]; this one spans {low:g} to {high:g}: "
            "undo its normalization, or pass bytes"
        )
    return (pixels * 255 + 0.5).astype(np.uint8)


def _three_channels(pixels: npt.NDArray[np.uint8]) -> UInt8[np.ndarray, "h w 3"]:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 4:
        rgba = Image.fromarray(np.ascontiguousarray(pixels))
        return rgb_pixels(rgba)
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    return np.ascontiguousarray(pixels)
