"""Files that commands write: checked before the work, replaced whole after it."""

from __future__ import annotations

import os
from pathlib import Path


def check_target(path: Path) -> None:
    """Make sure that ``path`` can be written, before the work whose result it is to hold.

    Raises:
        ValueError: it is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path}: its folder cannot be made: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: its folder cannot be written to")


def write_text(path: Path, text: str) -> None:
    """Write a file; what stood there stays whole until the new one is complete."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
