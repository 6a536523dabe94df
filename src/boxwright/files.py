"""Files that commands write: checked before the work, replaced whole after it.

A file that has several names (hard links) is replaced under the one that is written; the others keep what stood there.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

_DESCRIPTOR = re.compile(r"/(?:dev/(?:fd/(?P<fd>\d+)|std(?P<name>out|err))|proc/self/fd/(?P<proc>\d+))")
UNFINISHED = ".unfinished"
"""End of the name of a file until it is complete."""

_NAMED = {"out": 1, "err": 2}

_MAX_LINKS = 40
"""As many as Linux follows before it says that they lead in a circle."""


def check_target(path: Path) -> None:
    """Make sure that ``path`` can be written, before the work whose result it is to hold; leaves nothing behind.

    Raises:
        ValueError: it is a folder, or nothing can be written there.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    if path.exists():
        if not os.access(path, os.W_OK):
            raise ValueError(f"{path} cannot be written: no permission")
        if _is_written_in_place(path):
            return
    _check_parent(Path(os.path.realpath(path)))


def check_folder(path: Path) -> None:
    """Make sure of the same for a folder, which may exist.

    Raises:
        ValueError: it is a file, or nothing can be written there.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a folder")
    _check_parent(path / "any")


def _check_parent(path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be written: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission to write in {nearest}")
    # Some folders, as /proc, and a file system without room, refuse files whatever the permissions say.
    try:
        TemporaryFile(dir=nearest).close()
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {nearest} takes no files ({error.strerror})") from None


def write_text(path: Path, text: str) -> None:
    """Write a file of text as ``replace_file`` does."""
    replace_file(path, lambda unfinished: _write_utf8(unfinished, text))


def replace_file(path: Path, write: Callable[[Path], None], *, earlier: str | None = None) -> None:
    """Write a file, and its folder where there is none; what stood there stays whole until the new one is complete.

    A link stays a link: the file that it leads to is replaced, and keeps its permissions. Devices, pipes and open
    descriptors (``/dev/null``, ``/dev/stdout``) are written to directly.

    Args:
        path: of the file.
        write: writes the content into the file that it is called with, which is another one than ``path``.
        earlier: name in the same folder that the file that stood there gets; None where it is not kept. At every
            moment a whole file has one of the two names. What a link leads to is not kept.
    """
    if _is_written_in_place(path):
        with TemporaryDirectory() as folder:
            write(complete := Path(folder, path.name))
            _write_in_place(path, complete)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    unfinished = target.with_name(target.name + UNFINISHED)
    unfinished.unlink(missing_ok=True)
    try:
        # Nobody may read in the new file what they may not read in the old one, at no time.
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600))
        write(unfinished)
        with open(unfinished, "rb+") as file:
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(unfinished, mode)
        if earlier is not None and mode is not None and not path.is_symlink():
            os.replace(target, target.with_name(earlier))
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, names: Iterable[str]) -> None:
    """Remove what a process that was killed has left of files with these names, so that it does not fill the disk."""
    for name in names:
        (folder / (name + UNFINISHED)).unlink(missing_ok=True)


def is_standard_output(path: Path) -> bool:
    """Tell whether a file is this process's standard output by another name."""
    return _descriptor(path) == 1


def _is_written_in_place(path: Path) -> bool:
    """Tell whether there is a device, a pipe or an open descriptor, which a file must not replace."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def _descriptor(path: Path) -> int | None:
    """The number of the open file that ``path``, or a link on the way that it leads, names."""
    for _ in range(_MAX_LINKS):
        match = _DESCRIPTOR.fullmatch(os.path.abspath(path))
        if match is not None:
            number = match["fd"] or match["proc"]
            return _NAMED[match["name"]] if number is None else int(number)
        if not path.is_symlink():
            break
        # Link by link: the last one would lead on, from /dev/stdout to the file or pipe that is open there.
        path = Path(os.path.realpath(path.parent), os.readlink(path))
    return None


def _write_in_place(path: Path, complete: Path) -> None:
    """Copy a file into a device, a pipe or an open descriptor."""
    descriptor = _descriptor(path)
    # Opened anew by its name, a file behind a descriptor would be cut to nothing, with all that was printed before.
    sys.stdout.flush()
    sys.stderr.flush()
    with (
        complete.open("rb") as source,
        open(path if descriptor is None else descriptor, "wb", closefd=descriptor is None) as target,
    ):
        shutil.copyfileobj(source, target)


def _write_utf8(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
