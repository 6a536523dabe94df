"""Label files of YOLO data sets, by the images that they belong to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from boxwright.data.readers._image_files import compose_name, is_image_name, walk_files
from boxwright.data.readers._yolo_lists import IMAGE_FOLDERS
from boxwright.data.readers._yolo_yaml import NAMES_FILES

_NO_LABELS = {PurePosixPath(name).stem.lower() for name in NAMES_FILES} | {"train", "val", "valid", "test", "labels"}
"""Stems of text files that are lists and class names, where no image has them."""

_LABELS = re.compile(rb"\s*[0-9]+(\.0*)?([\s,]+[-+.0-9eE]+){4,}\s*(\n|\Z)")
_LABELS_FOLDER = "labels"


def is_no_label(folder: Path, name: str) -> bool:
    """Tell whether a text file is a list, class names or instructions, by its name and its first line."""
    stem = os.path.splitext(os.path.basename(name))[0].lower()
    if stem not in _NO_LABELS and not stem.startswith("readme"):
        return False
    path = folder / name
    if not path.is_file():
        return True
    with path.open("rb") as file:
        return _LABELS.match(file.read(4096).removeprefix(b"\xef\xbb\xbf")) is None


class LabelFiles:
    """Label files by image, from folders that are listed once each.

    Args:
        folder: the data set.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._labels: dict[str, dict[str, str]] = {}
        self._images_of: dict[str, set[str]] = {}
        self._folders: dict[str, list[str]] = {}

    def find(self, image: str) -> str | None:
        """Return the label file of an image: in ``labels`` in place of ``images``, beside it, or None.

        A folder or a pipe of its name is returned as well: reading it is an error.
        """
        parent, name = os.path.split(image)
        if parent not in self._folders:
            self._folders[parent] = list(dict.fromkeys(map(str, self._candidates(Path(parent)))))
            for folder in self._folders[parent]:
                self._images_of.setdefault(folder, set()).add(parent)
        stem = compose_name(os.path.splitext(name)[0])
        for folder in self._folders[parent]:
            labels = self._listed(folder).get(stem)
            if labels is not None:
                return os.path.join(folder, labels)
        return None

    def without_image(self) -> Iterator[str]:
        """List the label files in the folders that were searched whose image is in none of its folders."""
        for folder, parents in self._images_of.items():
            stems = {
                compose_name(os.path.splitext(name)[0])
                for parent in parents
                for name in walk_files(Path(parent), deep=False)
                if is_image_name(name)
            }
            for stem in sorted(self._listed(folder).keys() - stems):
                name = self._listed(folder)[stem]
                if not is_no_label(Path(folder), name) and not os.path.isdir(os.path.join(folder, name)):
                    yield os.path.join(folder, name)

    def _candidates(self, parent: Path) -> Iterator[Path]:
        yield from _labels_of(parent)
        yield parent
        yield self._folder / _LABELS_FOLDER
        real = Path(os.path.realpath(parent))
        if real != Path(os.path.abspath(parent)):  # images behind a link have their labels beside its target
            yield from _labels_of(real)

    def _listed(self, folder: str) -> dict[str, str]:
        if folder not in self._labels:
            names = sorted(_text_names(folder))
            self._labels[folder] = {compose_name(os.path.splitext(name)[0]): name for name in names}
        return self._labels[folder]


def find_label_files(folder: Path) -> Iterator[str]:
    """List all files of a data set that look like label files: in folders called labels, and beside their images."""
    names = list(walk_files(folder))
    images = {os.path.splitext(name)[0] for name in names if is_image_name(name)}
    for name in sorted(name for name in names if name.lower().endswith(".txt")):
        is_among_labels = f"/{_LABELS_FOLDER}/" in f"/{name}"
        if (is_among_labels or os.path.splitext(name)[0] in images) and not is_no_label(folder, name):
            yield os.path.join(folder, name)


def _labels_of(folder: Path) -> Iterator[Path]:
    """Yield the folder that has ``labels`` in place of the last ``images``."""
    parts = folder.parts
    positions = [index for index, part in enumerate(parts) if part in IMAGE_FOLDERS]
    if positions:
        yield Path(*parts[: positions[-1]], _LABELS_FOLDER, *parts[positions[-1] + 1 :])


def _text_names(folder: str) -> list[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return [name for name in names if name.lower().endswith(".txt") and not name.startswith(".")]
