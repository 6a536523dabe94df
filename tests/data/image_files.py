"""Images of every format, and files that are damaged or no images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from boxwright_runtime.images import decode_rgb

PIXELS = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
        (96, 72), Image.Resampling.BICUBIC
    )
)
"""Smooth pixels, 72 rows of 96."""


def encode(file_format: str, pixels: np.ndarray = PIXELS, **options: Any) -> bytes:
    """Return the file of an image."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    samples: np.ndarray, *extra: bytes, idat: int = 1 << 30, stream: Callable[[bytes], bytes] = zlib.compress
) -> bytes:
    """Return a PNG of 8 or 16 bits with further chunks before the pixels, in pieces of ``idat`` bytes."""
    height, width, channels = samples.shape
    depth = 8 * samples.dtype.itemsize
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(height, -1)
    pixels = stream(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, depth, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    pieces = [chunk(b"IDAT", pixels[start : start + idat]) for start in range(0, len(pixels), idat)]
    return b"".join((b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), *extra, *pieces, chunk(b"IEND", b"")))


FILES = {
    "jpeg": encode("JPEG"),
    "progressive.jpeg": encode("JPEG", progressive=True),
    "png": png(PIXELS, chunk(b"tEXt", b"Comment\0somebody's words"), idat=512),
    "gif": encode("GIF"),
    "bmp": encode("BMP"),
    "webp": encode("WEBP"),
    "lossless.webp": encode("WEBP", lossless=True),
    "tiff": encode("TIFF"),
    "lzw.tiff": encode("TIFF", compression="tiff_lzw"),
    "deflate.tiff": encode("TIFF", compression="tiff_adobe_deflate"),
    "ppm": encode("PPM"),
    "pgm": encode("PPM", PIXELS[..., 0].copy()),
    "avif": encode("AVIF"),
    "jp2": encode("JPEG2000"),
    "mpo": encode("MPO", save_all=True, append_images=[Image.fromarray(PIXELS[::-1].copy())]),
}
"""A file of each format that Pillow reads without further libraries."""


def pixels_of(file: bytes) -> np.ndarray | None:
    """Return the pixels that reading gives, None for an error."""
    try:
        return decode_rgb(file)
    except Exception:
        return None


def flip_byte(file: bytes, seed: int) -> bytes:
    """Return a file with one byte changed, anywhere."""
    rng = np.random.default_rng(seed)
    changed = bytearray(file)
    changed[int(rng.integers(len(file)))] ^= int(rng.integers(1, 256))
    return bytes(changed)
