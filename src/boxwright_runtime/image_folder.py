"""Images of a folder, and of all folders in it: every file is an image, or is counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boxwright_runtime.image_file import SUFFIXES
from boxwright_runtime.printable_names import first_names

_CLUTTER = {"thumbs.db", "desktop.ini"}
"""Files of systems in folders of images, in lower case; like those whose names begin with a dot not worth a note."""


class FolderListing(NamedTuple):
    """Files of a folder and of all below it, links to files and folders included.

    Args:
        images: whatever has a suffix of images and is no folder, in order; links that lead nowhere too.
        others: number of other files by suffix, in lower case.
    """

    images: list[Path]
    others: Counter[str]

    def describe_others(self) -> str:
        """Say how many files were left out, and of which kinds; empty where there are none."""
        if not self.others:
            return ""
        kinds = [f"{suffix or 'no suffix'} {count}" for suffix, count in _by_count(self.others)]
        return f"{self.others.total()} files left out that are no images of a known kind: {first_names(kinds, 5)}"


def list_folder(folder: Path) -> FolderListing:
    """List the images in a folder and in all below it; names that begin with a dot are left out.

    Raises:
        OSError: the folder cannot be listed.
    """
    others: Counter[str] = Counter()
    return FolderListing([Path(path) for path in walk_images(folder, others)], others)


def walk_images(folder: Path | str, others: Counter[str]) -> Iterator[str]:
    """Give the paths that ``list_folder`` lists, in its order, one folder at a time.

    Args:
        folder: the folder.
        others: counts other files by suffix.

    Raises:
        OSError: the folder cannot be listed.
    """
    os.scandir(folder).close()
    return _walk(os.fspath(folder), others, set())


def _walk(parent: str, others: Counter[str], visited: set[tuple[int, int]]) -> Iterator[str]:
    try:
        status = os.stat(parent)
        with os.scandir(parent) as scanned:
            entries = sorted((entry.name, _is_folder(entry)) for entry in scanned if not entry.name.startswith("."))
    except OSError:  # a folder in it that cannot be listed, as os.walk has it
        return
    if (status.st_dev, status.st_ino) in visited:  # a link to a folder above, or to one that is listed already
        return
    visited.add((status.st_dev, status.st_ino))
    for name, is_folder in entries:
        if is_folder:
            if name != "__MACOSX":
                yield from _walk(os.path.join(parent, name), others, visited)
        elif name.lower() not in _CLUTTER:
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                yield os.path.join(parent, name)
            else:
                others[suffix] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
