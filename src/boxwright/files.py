"""Files that commands write: checked before the work, replaced whole after it."""

from __future__ import annotations

import os
from pathlib import Path


def check_target(path: Path) -> None:
    """Make sure that ``path`` can be written, before the work whose result it is to hold; creates nothing.

    Raises:
        ValueError: it is a folder, or is in a place where nothing can be written.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    _check_place(path)


def check_folder(path: Path) -> None:
    """The same for a folder, which may exist.

    Raises:
        ValueError: it is a file, or is in a place where nothing can be written.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; give the name of a folder")
    _check_place(path / "any")


def _check_place(path: Path) -> None:
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not nearest.is_dir():
        raise ValueError(f"{path} cannot be written: {nearest} is a file, not a folder")
    if not os.access(nearest, os.W_OK):
        raise ValueError(f"{path} cannot be written: no permission to write in {nearest}")


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder where there is none; what stood there stays whole until the new one is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
