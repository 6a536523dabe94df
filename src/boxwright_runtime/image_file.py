"""Image files: only regular ones are opened, and every fault is one line that names the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from PIL import UnidentifiedImageError

from boxwright_runtime.printable_names import printable
from boxwright_runtime.quiet_decoding import quiet_decoding

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".avif", ".webp", ".gif"),
    *(".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
}
"""Suffixes of image files, in lower case: those that Pillow reads and that cameras, scanners and exports write."""

_OTHER_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def open_file(path: Path | str) -> Iterator[FileIO]:
    """Open a regular file, or a link to one; a pipe, a socket or a device is not waited for.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is something else, or its name is none.
    """
    with FileIO(os.fspath(path), "rb", opener=_open_without_waiting) as file:
        kind = _OTHER_FILES.get(stat.S_IFMT(os.fstat(file.fileno()).st_mode))
        if kind is not None:
            raise ValueError(f"it is {kind}, not a file")
        yield file


def load_file(path: Path | str) -> bytes:
    """Read a regular file as a whole; see ``open_file``."""
    with open_file(path) as file:
        return file.readall()


@contextmanager
def image_errors(path: Path | str) -> Iterator[None]:
    """Turn any error about an image into one line that names its file; decoders print nothing themselves.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no image, or is damaged.
    """
    try:
        with quiet_decoding():
            yield
    except FileNotFoundError as error:
        link = f": it is a link to {printable(os.readlink(path))}" if os.path.islink(path) else ""
        raise FileNotFoundError(f"there is no image {printable(path)}{link}") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise errors of any kind, SyntaxError included
        raise ValueError(f"{printable(path)} cannot be read as an image: {describe_error(error)}") from error


def describe_error(error: Exception) -> str:
    """Describe an error of reading an image in one line, without the name of the file."""
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image file, or its beginning is damaged"
    if isinstance(error, UnicodeEncodeError):
        return "no file has such a name"
    if isinstance(error, IsADirectoryError):
        return "it is a folder, not a file"
    if isinstance(error, MemoryError):
        return "it has more pixels than there is memory for"
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror[:1].lower() + error.strerror[1:]
    return " ".join(printable(" ".join(str(error).split())).split()) or type(error).__name__


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
