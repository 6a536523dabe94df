"""Sizes of JPEG and PNG files from a few bytes: a million images are opened in a minute.

Only ordinary files without any word on their orientation are answered here; Pillow reads the headers of all others.
"""

from __future__ import annotations

import os
from io import FileIO

from PIL import Image

from boxwright_runtime import jpeg_markers
from boxwright_runtime.png_chunks import SIGNATURE

_HEAD = 16_384
_FRAMES = (0xC0, 0xC1, 0xC2)
_OTHER_FRAMES = {*range(0xC3, 0xD0)} - {0xC4, 0xC8, 0xCC}
_ORIENTATION = 0xE1  # APP1: EXIF or XMP
_SCAN = 0xDA
_EXIF_TEXT = (b"Raw profile type", b"XML:com.adobe.xmp")


def header_size(file: FileIO) -> tuple[int, int] | None:
    """Return (height, width) of a JPEG or PNG that is upright as it is; None where Pillow must be asked."""
    head = file.read(_HEAD)
    if head.startswith(jpeg_markers.START):
        size = _jpeg_size(head)
    elif head.startswith(SIGNATURE) and head[12:16] == b"IHDR" and len(head) >= 33:
        size = _png_size(head, file)
    else:
        return None
    limit = Image.MAX_IMAGE_PIXELS
    if size is None or 0 in size or (limit is not None and size[0] * size[1] > limit):
        return None
    return size


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    size = None
    start = 2
    while start + 10 <= len(head):
        marker, length = head[start + 1], head[start + 2] << 8 | head[start + 3]
        if head[start] != 0xFF or marker in (_ORIENTATION, 0xFF) or marker in _OTHER_FRAMES or length < 2:
            return None
        if marker in _FRAMES:
            if size is not None or head[start + 4] != 8 or head[start + 9] not in (1, 3, 4):
                return None
            size = head[start + 5] << 8 | head[start + 6], head[start + 7] << 8 | head[start + 8]
        if marker == _SCAN:
            return size
        start += 2 + length
    return None


def _png_size(head: bytes, file: FileIO) -> tuple[int, int] | None:
    """Return the size of a PNG in whose chunks, also behind the pixels, there is no EXIF."""
    total = os.fstat(file.fileno()).st_size
    start = len(SIGNATURE)
    while start + 12 <= total:
        chunk = head[start : start + 48]
        if len(chunk) < 48:
            file.seek(start)
            chunk = file.read(48)
        name = chunk[4:8]
        if name == b"eXIf" or (name[1:] in (b"EXt", b"TXt") and chunk[8:].startswith(_EXIF_TEXT)):
            return None
        if name == b"IEND":
            break
        start += 12 + int.from_bytes(chunk[:4], "big")
    return int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")
