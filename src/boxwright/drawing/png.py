"""PNG files of RGB images, written fast, and with the interpreter free for other threads.

Pillow holds it while it compresses. Measured on 13 photographs and micrographs: 11.7 ms of one core an image and 410
kB, where Pillow takes 19.9 ms and 413 kB at the same level. Two of PNG's five filters are tried; Paeth's takes 12 ms
more in NumPy, for files that are no smaller.

**Source**: the PNG specification, third edition: chunks (5), filter types (9.2).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from boxwright_runtime.png_chunks import SIGNATURE

LEVEL = 1
"""Of zlib; 6, which is Pillow's, takes three to six times as long on photographs, for a sixth less at best."""

_SUB, _UP = 1, 2


def encode_png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Encode an RGB image as a PNG file."""
    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    data = zlib.compress(_filter_rows(pixels.reshape(height, 3 * width)).data, LEVEL)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _filter_rows(rows: UInt8[np.ndarray, "h w3"]) -> UInt8[np.ndarray, "h w4"]:
    """Put the filter of each row before it: the pixel on the left subtracted, or the one above, whichever leaves less.

    **Source**: the heuristic of the specification (12.7), the least sum of absolute differences.
    """
    left, above = np.empty((len(rows), rows.shape[1] + 1), np.uint8), np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    left[:, 0], above[:, 0] = _SUB, _UP
    left[:, 1:4], above[0, 1:] = rows[:, :3], rows[0]
    np.subtract(rows[:, 3:], rows[:, :-3], out=left[:, 4:])
    np.subtract(rows[1:], rows[:-1], out=above[1:, 1:])
    of_left, of_above = (
        np.abs(filtered[:, 1:].view(np.int8)).view(np.uint8).sum(axis=1, dtype=np.int64) for filtered in (left, above)
    )
    return np.where((of_left <= of_above)[:, None], left, above)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
