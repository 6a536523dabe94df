"""Locations of the bytes of images, a file, a part of an archive or an address, and short texts for them."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from boxwright.sources.remote import is_address, open_storage
from boxwright_runtime.image_file import open_file
from boxwright_runtime.stored_image import StoredImage

_HEADER, _HEADER_MARK = 30, b"PK\x03\x04"
"""Bytes of a zip file before the name of a member, and the first of them."""

_METHODS = {0: "stored", 8: "deflate"}
"""Numbers of the ways in which a zip file stores members."""


@dataclass(frozen=True)
class RemoteImage(StoredImage):
    """An image at an address.

    Args:
        address: as fsspec takes it.
    """

    address: str

    @property
    def name(self) -> str:
        """The address."""
        return self.address

    def load(self) -> bytes:
        """Read its bytes."""
        return read_range(self.address)


@dataclass(frozen=True)
class ArchivedImage(StoredImage):
    """An image in a tar or zip file, read without the directory of the file.

    Args:
        archive: path or address of the file.
        member: its name in it.
        start: of its bytes in the file; in a zip file of the header before them.
        size: number of its bytes, as they are stored.
        full_size: number of its bytes in a zip file once they are inflated; -1 in a tar file.
        checksum: CRC-32 that the zip file has of them.
    """

    archive: str
    member: str
    start: int
    size: int
    full_size: int = -1
    checksum: int = 0

    @property
    def name(self) -> str:
        """The path of the archive, and the name in it."""
        return f"{self.archive}/{self.member}"

    def load(self) -> bytes:
        """Read its bytes, and check them where the archive has a checksum."""
        if self.full_size < 0:
            return self._read(self.start)
        header = read_range(self.archive, self.start, self.start + _HEADER)
        if len(header) < _HEADER or not header.startswith(_HEADER_MARK):
            raise ValueError("the archive is damaged, or was changed since it was listed")
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        method = "an encrypting" if header[6] & 1 else _METHODS.get(int.from_bytes(header[8:10], "little"), "another")
        stored = self._read(self.start + _HEADER + lengths)
        if method not in _METHODS.values():
            raise ValueError(f"it is stored by {method} method in the archive; pack it by deflate, or not at all")
        content = stored if method == "stored" else _inflate(stored, self.full_size)
        if len(content) != self.full_size or zlib.crc32(content) != self.checksum:
            raise ValueError("the archive is damaged here: its checksum is not that of the bytes")
        return content

    def _read(self, start: int) -> bytes:
        content = read_range(self.archive, start, start + self.size)
        if len(content) < self.size:
            raise ValueError("the archive ends before it does")
        return content


def _inflate(stored: bytes, size: int) -> bytes:
    try:
        # No more than the directory says: a few bytes may inflate to more than there is memory for.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)
    except zlib.error as error:
        raise ValueError(f"the archive is damaged here ({error})") from None


def pack_location(source: Path | StoredImage) -> str:
    """Write where an image is as one text."""
    if isinstance(source, ArchivedImage):
        numbers = (source.start, source.size, source.full_size, source.checksum)
        return "\0".join((source.archive, source.member, *map(str, numbers)))
    return source.address if isinstance(source, RemoteImage) else os.fspath(cast(Path, source))


def unpack_location(text: str) -> Path | StoredImage:
    """Read such a text."""
    archive, *rest = text.split("\0")
    if rest:
        return ArchivedImage(archive, rest[0], *map(int, rest[1:]))
    return RemoteImage(text) if is_address(text) else Path(text)


def absolute_location(text: str) -> str:
    """Write such a text so that it means the same in another folder."""
    archive, separator, rest = text.partition("\0")
    return (archive if is_address(archive) else os.path.abspath(archive)) + separator + rest


def describe_location(text: str) -> str:
    """Write such a text for people."""
    source = unpack_location(text)
    return source.name if isinstance(source, StoredImage) else source.as_posix()


def read_range(location: str, start: int = 0, stop: int | None = None) -> bytes:
    """Read a part of a file, by its path or address.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no file.
    """
    if is_address(location):
        storage, path = open_storage(location)
        return bytes(storage.cat_file(path, start=start, end=stop))
    with open_file(location) as file:
        file.seek(start)
        if stop is None:
            return file.readall()
        parts, left = [], stop - start
        while left > 0 and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


@contextmanager
def open_location(location: str) -> Iterator[IO[bytes]]:
    """Open a file by its path or address, to read any part of it."""
    if is_address(location):
        storage, path = open_storage(location)
        with storage.open(path, "rb") as remote:
            yield remote
        return
    with open(location, "rb") as file:
        yield file


def describe_version(location: str) -> str:
    """Describe the state of a file, so that another state is noticed: size and time of its last change; empty where
    it cannot be told."""
    if is_address(location):
        storage, path = open_storage(location)
        try:
            return describe_entry(storage.info(path))
        except Exception:  # a storage service, or the network, may raise errors of any kind; reading tells which
            return ""
    try:
        status = os.stat(location)
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def describe_entry(entry: Any) -> str:
    """Describe the same of an entry that fsspec lists."""
    marks = (entry.get(key) for key in ("size", "ETag", "etag", "mtime", "LastModified", "updated", "created"))
    return " ".join(str(mark) for mark in marks if mark is not None)
