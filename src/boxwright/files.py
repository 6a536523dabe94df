"""Files that commands write: checked before the work, replaced whole after it.

A file that has several names (hard links) is replaced under the one that is written; the others keep what stood there.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

_DESCRIPTOR = re.compile(r"/(?:dev/(?:fd/(?P<fd>\d+)|std(?P<name>out|err))|proc/self/fd/(?P<proc>\d+))")
_NAMED = {"out": 1, "err": 2}

_MAX_LINKS = 40
"""As many as Linux follows before it says that they lead in a circle."""


def check_target(path: Path) -> None:
    """Make sure that ``path`` can be written, before the work whose result it is to hold; creates nothing.

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


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where there is none; what stood there stays whole until the new one is complete.

    A link stays a link: the file that it leads to is replaced, and keeps its permissions. Devices, pipes and open
    descriptors (``/dev/null``, ``/dev/stdout``) are written to directly.
    """
    if _is_written_in_place(path):
        _write_in_place(path, text)
        return
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
    unfinished = target.with_name(target.name + ".unfinished")
    unfinished.unlink(missing_ok=True)
    try:
        # Nobody may read in the new file what they may not read in the old one, at no time.
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            if mode is not None:
                os.chmod(unfinished, mode)
            file.write(text)
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


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


def _write_in_place(path: Path, text: str) -> None:
    descriptor = _descriptor(path)
    if descriptor is None:
        with path.open("w", encoding="utf-8") as file:
            file.write(text)
        return
    # Opened anew by its name, a file behind it would be cut to nothing, with all that was printed before.
    sys.stdout.flush()
    sys.stderr.flush()
    with open(descriptor, "w", encoding="utf-8", closefd=False) as file:
        file.write(text)
