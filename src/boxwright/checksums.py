"""Checksums of checkpoints, stored in the files themselves: one changed bit anywhere is found.

An archive of torch has its own as the comment of a zip file, a file of safetensors in its header. Either way it is the
SHA-256 of all bytes of the file, those of the checksum itself taken as zeros or left out.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, NoReturn

CHECKSUM = "checksum"
"""The key in the header of safetensors."""

_MARK = b"sha256:"
_DIGITS = 64
_END_SIZE = 22
"""Bytes that a zip file ends with if it has no comment."""
_END_MARK, _NO_COMMENT = b"PK\x05\x06", b"\0\0"
_MAX_HEADER = 100 * 2**20
_CHUNK = 2**20


def checksum_place() -> str:
    """Make the text that stands in a header of safetensors until ``add_checksum`` replaces it."""
    return json.dumps((_MARK + b"0" * _DIGITS).decode())


def add_checksum(path: Path) -> None:
    """Add its checksum to a file: an archive of torch, or one of safetensors whose header has a place for it."""
    with open(path, "rb+") as file:
        start = _place_in_header(file)
        if start is not None:
            digest = _hash_around(file, start)
            file.seek(start)
            file.write(digest)
            return
        file.seek(-_END_SIZE, 2)
        end = file.read()
        if not _ends_without_comment(end):
            raise ValueError(f"{path}: neither an archive of torch nor safetensors with a place for a checksum")
        file.seek(-len(_NO_COMMENT), 2)
        file.write((len(_MARK) + _DIGITS).to_bytes(2, "little") + _MARK)
        file.flush()
        digest = _hash_all(file)
        file.seek(0, 2)
        file.write(digest)


def verify_checksum(path: Path) -> None:
    """Make sure that a file is as it was written; one without a checksum, as earlier releases wrote it, is let pass.

    Raises:
        ValueError: it is damaged, or was changed since.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(4) != b"PK\x03\x04":
            _verify_header(path, file)
            return
        if size < _END_SIZE:
            _refuse(path)
        file.seek(-_END_SIZE, 2)
        if _ends_without_comment(file.read()):
            return
        length = len(_MARK) + _DIGITS
        if size < length:
            _refuse(path)
        file.seek(-length, 2)
        comment = file.read()
        if not comment.startswith(_MARK) or comment[len(_MARK) :] != _hash_all(file, size - _DIGITS):
            _refuse(path)


def is_damaged(path: Path) -> bool:
    """Tell whether a file is not as it was written, as far as its checksum can tell."""
    try:
        verify_checksum(path)
    except ValueError:
        return True
    return False


def _verify_header(path: Path, file: IO[bytes]) -> None:
    try:
        stated = [key == CHECKSUM or value.startswith('"sha256:') for key, value in _read_metadata(file).items()]
    except (ValueError, AttributeError, RecursionError):
        return  # No safetensors: reading it says what it is.
    if not any(stated):
        return
    start = _place_in_header(file)
    if start is None:
        _refuse(path)
    file.seek(start)
    if file.read(_DIGITS) != _hash_around(file, start):
        _refuse(path)


def _refuse(path: Path) -> NoReturn:
    raise ValueError(f"{path}: a damaged checkpoint: its checksum is not that of its content; take another copy")


def _ends_without_comment(end: bytes) -> bool:
    return end.startswith(_END_MARK) and end.endswith(_NO_COMMENT)


def _read_metadata(file: IO[bytes]) -> Mapping[str, str]:
    metadata = json.loads(_read_header(file)).get("__metadata__", {})
    return metadata if isinstance(metadata, dict) else {}


def _read_header(file: IO[bytes]) -> bytes:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    return file.read(length) if length <= _MAX_HEADER else b""


def _place_in_header(file: IO[bytes]) -> int | None:
    """Find the first digit of the checksum in a header of safetensors; None where there is no such header or place."""
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        return None
    matches = list(re.finditer(rb'"checksum":\s*"\\"sha256:([0-9a-f]{64})\\""', _read_header(file)))
    return 8 + matches[0].start(1) if len(matches) == 1 else None


def _hash_around(file: IO[bytes], start: int) -> bytes:
    """Hash a file whose digits at ``start`` are taken as zeros."""
    file.seek(0)
    digest = hashlib.sha256(file.read(start) + b"0" * _DIGITS)
    file.seek(start + _DIGITS)
    return _finish(digest, iter(lambda: file.read(_CHUNK), b""))


def _hash_all(file: IO[bytes], size: int | None = None) -> bytes:
    """Hash a file, or so many bytes of it."""
    left = file.seek(0, 2) if size is None else size
    file.seek(0)
    sizes = [_CHUNK] * (left // _CHUNK) + [left % _CHUNK]
    return _finish(hashlib.sha256(), (file.read(count) for count in sizes))


def _finish(digest: hashlib._Hash, chunks: Iterable[bytes]) -> bytes:
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest().encode()
