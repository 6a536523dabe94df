"""Images of a folder, and of all folders in it: every file is an image, or is counted."""

from __future__ import annotations

import os
from collections import Counter
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
    images: list[Path] = []
    others: Counter[str] = Counter()
    visited: set[tuple[int, int]] = set()
    os.scandir(folder).close()  # a folder that cannot be listed is an error; os.walk says nothing
    for parent, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in visited:  # a link to a folder above, or to one that is listed already
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith(".") or name.lower() in _CLUTTER:
                continue
            if suffix in SUFFIXES:
                images.append(Path(parent, name))
            else:
                others[suffix] += 1
    return FolderListing(sorted(images), others)


def _by_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
