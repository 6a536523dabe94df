"""Paths in files of YOLO data sets, which are often those of another machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from boxwright.data.file_name_forms import lower_form
from boxwright.data.readers._image_files import is_image_name, posix
from boxwright.data.split_names import canonical_split, without_year


def resolve_source(folder: Path, root: str, text: str, key: str) -> Path | None:
    """Find a folder or list where data.yaml says, where it would be if nothing led out of the folder, or by its end.

    Where none of these is there, names that differ in Unicode form, percent-encoding or case are found as well.

    Args:
        folder: of data.yaml.
        root: its ``path``.
        text: the path as it is written.
        key: of the path; an end of the path without the folder ``test`` is none for the key ``test``.
    """
    candidates = list(_candidates(folder, root, text, key))
    for path in candidates:
        if is_source(path) and path != folder:
            return path
    for path in candidates:
        similar = _find_loosely(path)
        if similar is not None and similar != folder and is_source(similar):
            return similar
    return None


def is_source(path: Path) -> bool:
    """Tell whether a path is a folder or a list."""
    # os.path, unlike Path, has no error for a name that is too long.
    return os.path.isdir(path) or (path.suffix == ".txt" and os.path.isfile(path))


def is_absolute(text: str) -> bool:
    """Tell whether a path begins with a slash or a drive."""
    return posix(text).startswith("/") or posix(text)[1:2] == ":"


def literal_paths(folder: Path, root: str, text: str) -> tuple[Path, Path]:
    """Return the paths that a text may mean as it is written."""
    return folder / posix(root) / posix(text), folder / posix(text)


def has_image(folder: Path) -> bool:
    """Tell whether there is an image in a folder or in the folders in it; stops at the first."""
    opened = [str(folder)]
    while opened:
        try:
            with os.scandir(opened.pop()) as entries:
                for entry in entries:
                    if is_image_name(entry.name):
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        opened.append(entry.path)
        except OSError:
            continue
    return False


def _candidates(folder: Path, root: str, text: str, key: str) -> Iterator[Path]:
    parts = [part for part in PurePosixPath(posix(text)).parts if part not in ("..", ".")]
    ends = [parts[start:] for start in range(1 if is_absolute(text) else 0, len(parts))]
    if any(_is_of_split(part, key) for part in parts):
        ends = [end for end in ends if any(_is_of_split(part, key) for part in end)]
    if posix(text).startswith("../"):
        yield from (folder.joinpath(*end) for end in ends[:1])
    yield from literal_paths(folder, root, text)
    yield from (folder.joinpath(*end) for end in ends)


def _is_of_split(part: str, key: str) -> bool:
    return canonical_split(without_year(PurePosixPath(part).stem)) == canonical_split(without_year(key))


def _find_loosely(path: Path) -> Path | None:
    """Return the one file or folder whose names are those of a path but for Unicode form, percent-encoding and case."""
    if os.path.lexists(path):
        return path
    if path.parent == path:
        return None
    parent = _find_loosely(path.parent)
    if parent is None:
        return None
    if path.name == "..":
        return parent / ".."
    try:
        matching = [name for name in os.listdir(parent) if lower_form(name) == lower_form(path.name)]
    except OSError:
        return None
    return parent / matching[0] if len(matching) == 1 else None
