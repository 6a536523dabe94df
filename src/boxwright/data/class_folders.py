"""Reading data sets for classification: a folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data.coco_layouts import OTHER_NAMES
from boxwright.data.picture_check import SUFFIXES, Progress, first_names, measure_pictures
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def has_split(data: Path, split: str) -> bool:
    """Whether there is a folder of this split, with at least one folder in it; ``valid`` and ``validation`` are val."""
    return _split_folder(data, split) is not None


def open_class_folders(
    data: Path,
    split: str = "train",
    *,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read ``data/split/CLASS/*.jpg``: every picture is one object of its folder's class, as large as the picture.

    Label ``i`` is the ``i``-th folder in alphabetical order, its id ``i + 1``. Pictures may lie deeper than in the
    folder itself. Names that begin with a dot are left out.

    Args:
        data: folder of the data set.
        split: train, val or another folder in it.
        categories: the classes of a model, which folders are matched with by name; label ``i`` is ``categories[i]``.
        check_images: decode every picture before returning; without it, only their headers are read.
        progress: called as ``progress(done, total)`` while the pictures are checked.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no class folders or no pictures, a picture cannot be read, or a folder is of a class that
            the model does not know.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; a data set for classification has {split}/CLASS/*.jpg in it")
    folder = _split_folder(data, split)
    if folder is None:
        raise ValueError(
            f"{data}: no split {split} for classification, which would have {split}/CLASS/*.jpg; "
            "`boxwright crop` cuts one out of a data set for detection"
        )
    folders = _class_folders(folder)
    if categories is None:
        categories = [Category(i, name) for i, name in enumerate(folders, start=1)]
    label_of = {category.name: label for label, category in enumerate(categories)}
    pictures = {name: _pictures(folder / name) for name in folders}
    _check_known(folder, [name for name in folders if pictures[name]], label_of)
    names = [(name, path) for name in folders for path in pictures[name]]
    if not names:
        raise ValueError(f"{folder}: no pictures in its folders ({', '.join(sorted(SUFFIXES))})")
    sizes = measure_pictures(folder, [path for _, path in names], decode=check_images, progress=progress)
    records = tuple(
        _record(number, folder / path, label_of[name], size)
        for number, ((name, path), size) in enumerate(zip(names, sizes, strict=True), start=1)
    )
    return DetectionData(records, tuple(categories), folder, notes=_notes(folder, folders, pictures))


def _split_folder(data: Path, split: str) -> Path | None:
    names = [split, *(name for name, meant in OTHER_NAMES.items() if meant == split)]
    return next((data / name for name in names if (data / name).is_dir() and _class_folders(data / name)), None)


def _class_folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _pictures(folder: Path) -> list[str]:
    """Paths relative to the split's folder."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    inside = [path.relative_to(folder.parent) for path in found]
    return [path.as_posix() for path in inside if not any(part.startswith(".") for part in path.parts)]


def _check_known(folder: Path, names: Sequence[str], label_of: dict[str, int]) -> None:
    unknown = [repr(name) for name in names if name not in label_of]
    if unknown:
        known = [repr(name) for name in label_of]
        raise ValueError(
            f"{folder}: {len(unknown)} of its classes are unknown to the model: {first_names(unknown, 5)}; "
            f"the model knows {len(known)}: {first_names(known, 5)}"
        )


def _record(number: int, path: Path, label: int, size: tuple[int, int]) -> Record:
    height, width = size
    return Record(
        image_id=number,
        path=path,
        height=height,
        width=width,
        labels=np.array([label], dtype=np.int64),
        bbox_xywh=np.array([[0.0, 0.0, width, height]]),
        area=np.array([float(height * width)]),
        crowd=np.zeros(1, dtype=bool),
        annotation_ids=(number,),
    )


def _notes(folder: Path, folders: Sequence[str], pictures: dict[str, list[str]]) -> tuple[str, ...]:
    notes = []
    empty = [repr(name) for name in folders if not pictures[name]]
    if empty:
        notes.append(f"{folder}: {len(empty)} of {len(folders)} classes have no pictures here: {first_names(empty)}")
    loose = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES]
    if loose:
        notes.append(f"{folder}: {len(loose)} pictures in no class folder left out: {first_names(loose)}")
    return tuple(notes)
