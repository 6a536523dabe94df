"""Markers of JPEG files: where the pixels begin, and whether the end is there."""

from __future__ import annotations

import re
from collections.abc import Iterator

START = b"\xff\xd8\xff"
END = b"\xff\xd9"

_SCAN = 0xDA
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_NO_BITS = 16
"""Of a coefficient of which there is no scan yet; lower numbers are the lowest bit that there is."""

_SEGMENT = re.compile(rb"\xff[\xc4\xda\xdb\xdd\xe0-\xef\xfe]")
"""Beginnings of segments between scans: among coded pixels, 0xff is followed by 0 or by a restart marker alone."""
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def scan_start(data: bytes) -> int | None:
    """Return the position of a JPEG's first coded pixels; None where there are none, or garbage before them."""
    start = 2
    while start + 4 <= len(data) and data[start] == 0xFF:
        marker = data[start + 1]
        if marker == 0xFF:  # a fill byte
            start += 1
            continue
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        if length < 2:
            return None
        start += 2 + length
        if marker == _SCAN:
            return start
    return None


def end_position(data: bytes) -> int | None:
    """Return the position of the end marker at which a decoder stops, the first one behind coded pixels.

    The ends of a thumbnail before them, and of what follows (the rest of the pixels, a second image), do not count, nor
    do those bytes inside a segment between scans.
    """
    start = scan_start(data)
    while start is not None:
        marker = _MARKER.search(data, start)
        if marker is None:
            return None
        if marker.group() == END:
            return marker.start()
        start = marker.end()
        if _SEGMENT.match(data, marker.start()):
            start += int.from_bytes(data[start : start + 2], "big")
    return None


def lacks_scans(data: bytes) -> bool:
    """Return True where a progressive JPEG ends, with its end marker, before all bits of all coefficients.

    It is decoded all the same, from the scans that are there: blurred, in blocks, or without colors.
    """
    bits: dict[int, list[int]] = {}
    try:
        for kind, start in _segments(data):
            if kind in _PROGRESSIVE:
                bits = {data[at]: [_NO_BITS] * 64 for at in range(start + 8, start + 8 + 3 * data[start + 7], 3)}
            elif kind == _SCAN and bits:
                count = data[start + 2]
                first, last, position = data[start + 3 + 2 * count : start + 6 + 2 * count]
                for component in data[start + 3 : start + 3 + 2 * count : 2]:
                    bits[component][first : last + 1] = [position & 15] * (last + 1 - first)
    except (IndexError, KeyError, ValueError):  # a header that decoders put up with
        return False
    return any(map(any, bits.values()))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the kind of each segment before the end marker, and the position of its length."""
    start, end = 2, end_position(data)
    while end is not None and (marker := _MARKER.search(data, start, end)) is not None:
        start = marker.end()
        yield data[marker.start() + 1], start
        start += int.from_bytes(data[start : start + 2], "big")


def has_end(data: bytes) -> bool:
    """Return True where a JPEG's coded pixels are followed by the end marker; a thumbnail's own end does not count."""
    return end_position(data) is not None


def endings(data: bytes) -> list[bytes]:
    """Return a JPEG that is cut, ended at its cut and at the last few segments before: one of them is decodable."""
    start = scan_start(data)
    if start is None:
        return []
    segments = [match.start() for match in _SEGMENT.finditer(data, start)]
    return [data[:stop] + END for stop in (len(data), *segments[:-5:-1])]
