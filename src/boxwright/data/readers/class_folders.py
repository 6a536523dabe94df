"""Folders of classes: train/CLASS/*.jpg; `boxwright crop` makes them from a data set for detection."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.data.image_check import SUFFIXES, first_names
from boxwright.data.readers._claimed_paths import find_rivals
from boxwright.data.readers._image_files import walk_files
from boxwright.data.split_names import canonical_split, sort_splits, without_year
from boxwright.structures import Category, Task

TASK: Task = "classification"

_CLUTTER = {"thumbs.db", "desktop.ini"}
"""Files that file managers leave in folders of images, in lower case; not worth a note."""


def recognizes(folder: Path) -> bool:
    """Return True where the folder has folders with folders in them."""
    return bool(_split_folders(folder))


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first; ``train`` for the folder ``train2017``."""
    names = _split_folders(folder)
    undated = {name: canonical_split(without_year(name)) for name in names}
    counts = Counter(undated.values())
    return sort_splits({undated[name] if counts[undated[name]] == 1 else canonical_split(name) for name in names})


def read(folder: Path, split: str) -> Annotations:
    """Read ``folder/split/CLASS/*.jpg``: every image is one object of its folder's class, as large as the image.

    Classes are in alphabetical order. Images may lie deeper than in the folder itself; links to folders are followed,
    each target once. Names that begin with a dot are left out. Classes go by their folders' names in Unicode's form
    NFC: some systems write an accent as a letter of its own, and two names that look the same are the same class.

    Names of splits are as forgiving as those of detection: ``val`` is also ``valid`` or ``validation``, and each of
    them finds the others; ``train`` is also ``train2017``, where no other year is there.

    Raises:
        ValueError: there is no such split, it has no class folders or no images.
    """
    candidates = _find_split(folder, split)
    if not candidates:
        raise ValueError(
            f"{folder}: no split {split} for classification, which would have {split}/CLASS/*.jpg; "
            f"`boxwright crop` cuts one out of a data set for detection; its folders are {_first(_folders(folder))}"
        )
    split_folder, *rivals = candidates
    files, others = _list_files(split_folder)
    if not any(files.values()):
        left_out = f"; {_left_out(others)}" if others else ""
        raise ValueError(f"{split_folder}: no images in its folders ({', '.join(sorted(SUFFIXES))}){left_out}")
    names = [name for paths in files.values() for name in paths]
    return Annotations(
        path=split_folder,
        image_folders=(split_folder,),
        categories=tuple(Category(number, name) for number, name in enumerate(files, start=1)),
        images=tuple(ListedImage(number, name) for number, name in enumerate(names, start=1)),
        image_index=np.arange(len(names)),
        labels=np.repeat(np.arange(len(files)), [len(paths) for paths in files.values()]),
        bbox_xywh=None,
        has_category_ids=False,
        notes=_notes(split_folder, files, others),
        findings=find_rivals(folder, split, split_folder, rivals),
    )


def unread_files(folder: Path) -> list[Path]:  # noqa: ARG001 - as all readers have it
    """Return no file: this format has no annotation files."""
    return []


def _split_folders(folder: Path) -> list[str]:
    return [name for name in _folders(folder) if _folders(folder / name)]


def _find_split(folder: Path, split: str) -> list[Path]:
    """Return the folder of a split, and then others of the same split: none where there is no such split."""
    split = split.strip("/")
    canonical = canonical_split(split)
    names = _split_folders(folder)
    alike = sorted(
        (name for name in names if canonical_split(name) == canonical), key=lambda name: (name != canonical, name)
    )
    dated = [name for name in names if name not in alike and canonical_split(without_year(name)) == canonical]
    candidates = [split, *alike, *(dated if len(dated) == 1 and not alike else ())]
    return [folder / name for name in dict.fromkeys(candidates) if name and _has_folders(folder / name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(_folders(folder))


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_name(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _list_files(folder: Path) -> tuple[dict[str, list[str]], Counter[str]]:
    """List the images of each class, relative to the split's folder, and count the other files by suffix."""
    images: dict[str, list[str]] = {}
    others: Counter[str] = Counter()
    for name in sorted(_folders(folder), key=_class_name):
        of_class = images.setdefault(_class_name(name), [])
        for path in sorted(map(PurePosixPath, walk_files(folder / name))):
            if path.suffix.lower() in SUFFIXES:
                of_class.append(f"{name}/{path}")
            elif path.name.lower() not in _CLUTTER:
                others[path.suffix.lower()] += 1
    return images, others


def _notes(folder: Path, files: dict[str, list[str]], others: Counter[str]) -> tuple[str, ...]:
    notes = []
    filled = [name for name, paths in files.items() if paths]
    deeper = sorted({PurePosixPath(path).parts[1] for path in files[filled[0]] if path.count("/") > 1})
    if len(filled) == 1 and deeper:
        notes.append(f"if the classes are the folders of {filled[0]!r}, {_first(deeper)}, move them up into {folder}")
    loose = [path.name for path in sorted(folder.iterdir()) if path.is_file() and path.suffix.lower() in SUFFIXES]
    if loose:
        notes.append(f"{len(loose)} images in no class folder left out: {first_names(loose)}")
    if others:
        notes.append(_left_out(others))
    return tuple(notes)


def _left_out(others: Counter[str]) -> str:
    kinds = [f"{suffix or 'no suffix'} {others[suffix]}" for suffix in sorted(others, key=lambda s: (-others[s], s))]
    return f"{others.total()} files left out that are no images of a known kind: {first_names(kinds, 5)}"


def _first(names: Sequence[str]) -> str:
    return first_names([repr(name) for name in names], 5) or "none"
