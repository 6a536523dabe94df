"""Checksums of PNG files: Pillow does not look at those of the pixels."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_WITHOUT_PIXELS = {
    *(b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"bKGD", b"hIST", b"sPLT", b"oFFs", b"pCAL", b"sCAL"),
    *(b"gAMA", b"cHRM", b"iCCP", b"sRGB", b"sBIT", b"cICP", b"mDCV", b"cLLI", b"caBX", b"vpAg", b"orNT"),
}
"""Chunks that change no pixel here: text, times, resolutions, and colors that are not managed."""


class Chunk(NamedTuple):
    """One chunk of a PNG file.

    Args:
        name: of four letters.
        start: of the whole chunk in the file.
        stop: behind its checksum.
        is_whole: its checksum is right.
    """

    name: bytes
    start: int
    stop: int
    is_whole: bool

    @property
    def content(self) -> slice:
        """The chunk's data in the file."""
        return slice(self.start + 8, self.stop - 4)


def read_chunks(data: bytes) -> Iterator[Chunk]:
    """Read the chunks of a PNG file up to its end, or to where it is cut.

    Raises:
        ValueError: the file ends inside a chunk or without the last one.
    """
    view, start = memoryview(data), len(SIGNATURE)
    name = b""
    while name != b"IEND":
        stop = start + 12 + int.from_bytes(view[start : start + 4], "big")
        if start + 12 > len(data) or stop > len(data):
            raise ValueError(f"image file is truncated, or damaged at byte {start:,}")
        name = data[start + 4 : start + 8]
        yield Chunk(name, start, stop, zlib.crc32(view[start + 4 : stop - 4]) == int.from_bytes(view[stop - 4 : stop]))
        start = stop


def mend_png(data: bytes) -> tuple[bytes, list[str]]:
    """Check every chunk of a PNG file, and take out those that are damaged and hold no pixels.

    Returns:
        the file, and the names of the chunks that were taken out.

    Raises:
        ValueError: a chunk that pixels depend on is damaged or missing.
    """
    damaged = []
    for chunk in read_chunks(data):
        if chunk.is_whole or chunk.name == b"IEND":
            continue
        if chunk.name not in _WITHOUT_PIXELS:
            raise ValueError(f"its chunk {chunk.name!r:.20} at byte {chunk.start:,} is damaged: wrong checksum")
        damaged.append(chunk)
    for chunk in reversed(damaged):
        data = data[: chunk.start] + data[chunk.stop :]
    return data, [chunk.name.decode() for chunk in damaged]


def matches_checksum(data: bytes) -> bool:
    """Return True where the pixels of a PNG file, decompressed, have the checksum that the compressor wrote."""
    stream = zlib.decompressobj()
    try:
        for chunk in read_chunks(data):
            if chunk.name == b"IDAT":
                stream.decompress(data[chunk.content])
    except zlib.error:
        return False
    return stream.eof
