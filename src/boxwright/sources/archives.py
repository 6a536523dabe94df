"""Images in tar files, such as those of WebDataset, and in zip files."""

from __future__ import annotations

import os
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO

from boxwright.sources.locations import ArchivedImage, describe_version, open_location, pack_location
from boxwright.sources.source_image import SourceImage
from boxwright_runtime.image_file import SUFFIXES, describe_error
from boxwright_runtime.image_folder import FolderListing
from boxwright_runtime.printable_names import printable

ARCHIVES = (".tar", ".zip")
"""Suffixes of archives, in lower case."""

COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
"""Suffixes of archives in which no image can be read without all before it."""

_GZIP = b"\x1f\x8b"


def list_archive(location: str, note: Callable[[str], None]) -> Iterator[SourceImage]:
    """List the images in an archive, in its order.

    Args:
        location: path or address of the file.
        note: takes a line that counts its other files, where there are any.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none, is damaged or cut off, is compressed as a whole, or has no images in it.
    """
    list_members = _list_zip if location.lower().endswith(".zip") else _list_tar
    version, others, count = describe_version(location), Counter[str](), 0
    try:
        with open_location(location) as file:
            for member in list_members(location, file):
                folder, name = os.path.split(member.member)
                suffix = os.path.splitext(name)[1].lower()
                if name.startswith(".") or folder.startswith("__MACOSX"):
                    continue
                if suffix not in SUFFIXES:
                    others[suffix] += 1
                    continue
                count += 1
                yield SourceImage(member.member.removeprefix("./"), pack_location(member), version=version)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise ValueError(f"{printable(location)} cannot be read as an archive: {describe_error(error)}") from error
    left_out = FolderListing([], others).describe_others()
    if not count:
        raise ValueError(f"{printable(location)}: no images in this archive" + (f"; {left_out}" if left_out else ""))
    # Labels and texts stand beside each image in WebDataset's files: no news there.
    if left_out and location.lower().endswith(".zip"):
        note(f"{printable(location)}: {left_out}")


def _list_tar(location: str, file: IO[bytes]) -> Iterator[ArchivedImage]:
    is_compressed = location.lower().endswith(COMPRESSED) or file.read(len(_GZIP)) == _GZIP
    if is_compressed:
        raise tarfile.ReadError("it is compressed as a whole; unpack it, or pack it without compression")
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            if member.isreg() and not member.issparse():
                yield ArchivedImage(location, member.name, member.offset_data, member.size)
            # It would keep all of them.
            archive.members = []  # type: ignore[attr-defined]  # documented, and missing from the stubs
        file.seek(archive.offset)
        # Reading headers simply ends where a file that was cut off does.
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is cut off")


def _list_zip(location: str, file: IO[bytes]) -> Iterator[ArchivedImage]:
    with zipfile.ZipFile(file) as archive:
        for one in archive.infolist():
            if not one.is_dir():
                numbers = (one.header_offset, one.compress_size, one.file_size, one.CRC)
                yield ArchivedImage(location, one.filename, *numbers)
