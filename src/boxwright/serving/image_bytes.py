"""Images that strangers send: their size from the header first, and only then their pixels."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from boxwright.serving.refusal import RefusalError
from boxwright_runtime.image_decoding import upright_size
from boxwright_runtime.image_file import describe_error
from boxwright_runtime.images import decode_rgb
from boxwright_runtime.quiet_decoding import quiet_decoding

if TYPE_CHECKING:
    from jaxtyping import UInt8

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats of Pillow's that are read, as far as it was built with them: of the others, some start programs."""


def read_header_size(data: bytearray, max_pixels: int) -> tuple[int, int]:
    """Return (height, width) of an image from the header of its file, upright.

    Raises:
        RefusalError: it is no image, or has too many pixels.
    """
    try:
        with quiet_decoding(), Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            height, width = upright_size(image)
    except Image.DecompressionBombError:
        raise RefusalError(413, f"the image has more than {max_pixels:,} pixels") from None
    except Exception as error:  # on damaged files, Pillow raises errors of any kind
        raise _damaged(error) from None
    if height * width > max_pixels:
        raise RefusalError(
            413, f"the image has {width:,} x {height:,} pixels, and {max_pixels:,} is the most that is taken"
        )
    return height, width


@cache
def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def read_pixels(data: bytearray) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image whose size was looked at.

    Raises:
        RefusalError: it is damaged.
    """
    try:
        with quiet_decoding():
            return decode_rgb(bytes(data))
    except Exception as error:  # likewise
        raise _damaged(error) from None


def _damaged(error: Exception) -> RefusalError:
    return RefusalError(400, f"the image cannot be read: {describe_error(error)}")
