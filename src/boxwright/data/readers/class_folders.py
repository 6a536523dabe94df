"""Reading data sets for classification: a folder per class."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from boxwright.data.coco_layouts import canonical_split, without_year
from boxwright.data.image_check import SUFFIXES, Progress, first_names, measure_images
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category

_CLUTTER = {"thumbs.db", "desktop.ini"}
"""What file managers leave in folders of images, in lower case; not worth a word."""


def has_split(data: Path, split: str) -> bool:
    """Whether there is a folder of this split, with at least one folder in it.

    Names are as forgiving as those of detection: ``val`` is also ``valid`` or ``validation``, and each of them finds
    the others; ``train`` is also ``train2017``, where no other year is there.
    """
    return _split_folder(data, split) is not None


def open_class_folders(
    data: Path,
    split: str = "train",
    *,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read ``data/split/CLASS/*.jpg``: every image is one object of its folder's class, as large as the image.

    Label ``i`` is the ``i``-th class in alphabetical order, its id ``i + 1``. Images may lie deeper than in the
    folder itself. Names that begin with a dot are left out. Classes go by their folders' names in Unicode's form NFC:
    some systems write an accent as a letter of its own, and what looks the same is the same class.

    Args:
        data: folder of the data set.
        split: train, val or another folder in it; see ``has_split``.
        categories: the classes of a model, which folders are matched with by name; label ``i`` is ``categories[i]``.
            Without them, images of at least two classes are needed: with one there is nothing to learn.
        check_images: decode every image before returning; without it, only their headers are read.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has no class folders, no images or those of one class only, an image cannot be read, or a
            folder is of a class that the model does not know.
    """
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; a data set for classification has {split}/CLASS/*.jpg in it")
    folder = _split_folder(data, split)
    if folder is None:
        raise ValueError(
            f"{data}: no split {split} for classification, which would have {split}/CLASS/*.jpg; "
            f"`boxwright crop` cuts one out of a data set for detection; its folders are {_first(_folders(data))}"
        )
    images, others = _content(folder)
    if not any(images.values()):
        raise ValueError(f"{folder}: no images in its folders ({', '.join(sorted(SUFFIXES))}){_also(others)}")
    if categories is None:
        _check_several(folder, images, others)
        categories = [Category(i, name) for i, name in enumerate(images, start=1)]
    label_of = {_class_name(category.name): label for label, category in enumerate(categories)}
    _check_known(folder, [name for name, paths in images.items() if paths], label_of)
    names = [(name, path) for name, paths in images.items() for path in paths]
    sizes = measure_images(folder, [path for _, path in names], decode=check_images, progress=progress)
    records = tuple(
        _record(number, folder / path, label_of[name], size)
        for number, ((name, path), size) in enumerate(zip(names, sizes, strict=True), start=1)
    )
    return DetectionData(records, tuple(categories), folder, notes=_notes(folder, images, others))


def _split_folder(data: Path, split: str) -> Path | None:
    if not data.is_dir():
        return None
    split = split.strip("/")
    wanted = canonical_split(split)
    filled = [name for name in _folders(data) if _folders(data / name)]
    alike = [name for name in filled if canonical_split(name) == wanted]
    dated = [name for name in filled if name not in alike and canonical_split(without_year(name)) == wanted]
    names = [split, *alike, *(dated if len(dated) == 1 else ())]
    return next((data / name for name in names if name and (data / name).is_dir() and _folders(data / name)), None)


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _content(folder: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """For each class its images, relative to the split's folder; and how many other files have which suffix."""
    images: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    for name in sorted(_folders(folder), key=_class_name):
        of_class = images.setdefault(_class_name(name), [])
        for path in sorted((folder / name).rglob("*")):
            inside = path.relative_to(folder)
            if any(part.startswith(".") for part in inside.parts) or not path.is_file():
                continue
            if path.suffix.lower() in SUFFIXES:
                of_class.append(inside.as_posix())
            elif path.name.lower() not in _CLUTTER:
                others[path.suffix.lower()] += 1
    return images, others


def _check_several(folder: Path, images: dict[str, list[str]], others: Counter[str]) -> None:
    found = [name for name, paths in images.items() if paths]
    if len(found) > 1:
        return
    parts = [PurePosixPath(path).parts for path in images[found[0]]]
    deeper = sorted({part[1] for part in parts if len(part) > 2})
    advice = (
        f"if the classes are its sub-folders, {_first(deeper)}, move them up into {folder}"
        if deeper
        else "add a folder of images for each other class"
    )
    raise ValueError(
        f"{folder}: only one class has images, {found[0]!r}, and a classifier tells at least two apart; "
        f"{advice}{_also(others)}"
    )


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


def _notes(folder: Path, images: dict[str, list[str]], others: Counter[str]) -> tuple[str, ...]:
    notes = []
    empty = [repr(name) for name, paths in images.items() if not paths]
    if empty:
        notes.append(f"{folder}: {len(empty)} of {len(images)} classes have no images here: {first_names(empty)}")
    loose = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES]
    if loose:
        notes.append(f"{folder}: {len(loose)} images in no class folder left out: {first_names(loose)}")
    if others:
        notes.append(f"{folder}: {_left_out(others)}")
    return tuple(notes)


def _left_out(others: Counter[str]) -> str:
    kinds = [f"{suffix or 'no suffix'} {others[suffix]}" for suffix in sorted(others, key=lambda s: (-others[s], s))]
    return f"{others.total()} files left out that are no images of a known kind: {first_names(kinds, 5)}"


def _also(others: Counter[str]) -> str:
    return f"; {_left_out(others)}" if others else ""


def _first(names: Sequence[str]) -> str:
    return first_names([repr(name) for name in names], 5) or "none"
