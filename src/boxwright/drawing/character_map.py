"""Characters of a font file, read from its table ``cmap``: much faster than to load the font and try each of them.

**Source**: OpenType specification 1.9, tables ``ttcf``, ``cmap`` formats 4 and 12.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int64

Ranges = Int64[np.ndarray, "n 2"]

_UNICODE = {(3, 10): 0, (0, 6): 1, (0, 4): 1, (3, 1): 2, (0, 3): 3, (0, 2): 3, (0, 1): 3, (0, 0): 3}
"""Platform and encoding of subtables of Unicode, those of all planes first."""

_MOST_BYTES = 10_000_000
_MOST_RANGES = 200_000


@cache
def character_ranges(file: str) -> Ranges:
    """Read the first and last code points of ranges that a font may have glyphs for; none where it cannot be read.

    Args:
        file: TrueType, OpenType, or a collection of them, whose first font counts.
    """
    try:
        with Path(file).open("rb") as opened:
            return _parse(_read_table(opened))
    except (OSError, ValueError, struct.error, IndexError):
        return np.empty((0, 2), dtype=np.int64)


def _read_table(file: BinaryIO) -> bytes:
    """Content of the table ``cmap`` of the first font of a file."""
    start = 0
    if file.read(4) == b"ttcf":
        (start,) = struct.unpack(">8xI", file.read(12))
    file.seek(start + 4)
    (count,) = struct.unpack(">H6x", file.read(8))
    for _ in range(count):
        tag, offset, length = struct.unpack(">4s4xII", file.read(16))
        if tag == b"cmap" and length <= _MOST_BYTES:
            file.seek(offset)
            return file.read(length)
    raise ValueError("no cmap")


def _parse(table: bytes) -> Ranges:
    (count,) = struct.unpack_from(">2xH", table)
    subtables = [struct.unpack_from(">HHI", table, 4 + 8 * i) for i in range(count)]
    unicode = [(_UNICODE[platform, encoding], offset) for platform, encoding, offset in subtables
               if (platform, encoding) in _UNICODE]  # fmt: skip
    for _, offset in sorted(unicode):
        (kind,) = struct.unpack_from(">H", table, offset)
        if kind == 12:
            return _segmented(table[offset:])
        if kind == 4:
            return _segments_of_16_bits(table[offset:])
    raise ValueError("no subtable of Unicode")


def _segmented(table: bytes) -> Ranges:
    """Format 12: groups of first character, last character and first glyph."""
    (count,) = struct.unpack_from(">12xI", table)
    if count > _MOST_RANGES:
        raise ValueError("too many groups")
    groups = np.frombuffer(table, dtype=">u4", count=3 * count, offset=16).reshape(-1, 3)
    return groups[:, :2].astype(np.int64)


def _segments_of_16_bits(table: bytes) -> Ranges:
    """Format 4: last characters, a number of padding, first characters."""
    (doubled,) = struct.unpack_from(">6xH", table)
    last = np.frombuffer(table, dtype=">u2", count=doubled // 2, offset=14)
    first = np.frombuffer(table, dtype=">u2", count=doubled // 2, offset=16 + doubled)
    return np.stack([first, last], 1).astype(np.int64)
