"""Positions of annotation files, split lists and images in folders of Pascal VOC files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._image_files import compose_name, files_of_suffix, folders_in, posix, walk_files
from boxwright.data.split_names import canonical_split, without_year

_ANNOTATION_FOLDERS = ("annotations/xmls", "annotations/xml", "Annotations", "annotations", "xmls", "xml", "labels")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "image", "imgs", "img")
_OF_CLASS = re.compile(r".+_(train|val|trainval|test)")
"""Lists of one class, as ``dog_train.txt``."""


class VocSplit(NamedTuple):
    """One split: its list, if it has one, the folder of its annotation files, and where its images may be."""

    list_file: Path | None
    annotations: Path
    image_folders: tuple[Path, ...]

    @property
    def path(self) -> Path:
        """The list or the folder, for messages."""
        return self.list_file or self.annotations


def find_voc_splits(folder: Path) -> dict[str, VocSplit]:
    """Find all splits of a folder by name.

    Known layouts:

    - ``Annotations/*.xml`` with ``ImageSets/Main/*.txt`` and ``JPEGImages/`` or ``images/``, also one or two folders
      deeper, as ``VOCdevkit/VOC2007``; where several folders have such lists, a split has the name of its folder too;
    - ``Annotations/train/*.xml``, or ``Annotations/*.xml`` without lists, which is the split train;
    - ``train/*.xml`` beside the images, as Roboflow exports, or ``train/Annotations/*.xml``;
    - ``*.xml`` beside the images, which is the split train.
    """
    try:
        return _listed(folder) or _in_annotation_folder(folder) or _in_split_folders(folder) or _beside(folder)
    except OSError:
        return {}


def find_voc_split(folder: Path, split: str) -> VocSplit:
    """Find one split of a folder.

    Raises:
        ValueError: there is no such split; names the splits that there are.
    """
    splits = find_voc_splits(folder)
    name = canonical_split(split.strip("/"))
    if name in splits:
        return splits[name]
    if not splits:
        raise ValueError(f"no split {split!r} in {folder}: it has no Annotations/*.xml or {split}/*.xml")
    raise ValueError(f"no split {split!r} in {folder}: its splits are {', '.join(splits)}")


def listed_names(list_file: Path) -> list[str]:
    """Return the lines of a list.

    Raises:
        ValueError: it is no text file.
    """
    try:
        text = list_file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{list_file} is no list of images: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def stem_of(name: str) -> str:
    """Return the name of an annotation file or image without its suffix, and without that of an image in a list."""
    path = PurePosixPath(compose_name(posix(name)))
    return str(path.with_suffix("")) if path.suffix.lower() in (".xml", *SUFFIXES) else str(path)


def annotation_files(folder: Path) -> dict[str, Path]:
    """Return all annotation files of a folder by their names without suffix, with forward slashes."""
    return {stem_of(name): folder / name for name in sorted(walk_files(folder)) if name.lower().endswith(".xml")}


def _listed(folder: Path) -> dict[str, VocSplit]:
    roots = [root for root in _roots(folder) if (root / "ImageSets").is_dir() and _annotation_folder(root)]
    splits: dict[str, VocSplit] = {}
    for root in roots:
        lists = sorted([*(root / "ImageSets" / "Main").glob("*.txt")] or [*(root / "ImageSets").glob("*.txt")])
        names = {canonical_split(file.stem): file for file in lists if not _OF_CLASS.fullmatch(file.stem)}
        if "train" in names:
            names.pop("trainval", None)
        if set(names) in ({"default"}, {"trainval"}):
            names["train"] = names.popitem()[1]
        annotations = _annotation_folder(root)
        assert annotations is not None
        for name, file in names.items():
            own = name if len(roots) == 1 else _with_folder(name, root.name)
            splits[own] = VocSplit(file, annotations, _image_folders(root, annotations))
    return splits


def _with_folder(split: str, folder: str) -> str:
    """Return ``train2007`` for the folder ``VOC2007``."""
    year = re.search(r"\d{4}$", folder)
    return f"{split}{year[0]}" if year else f"{split}_{folder}"


def _roots(folder: Path) -> Iterator[Path]:
    yield folder
    for inner in folders_in(folder):
        yield inner
        if inner.name not in (*_ANNOTATION_FOLDERS, *_IMAGE_FOLDERS, "ImageSets"):
            yield from folders_in(inner)


def _in_annotation_folder(folder: Path) -> dict[str, VocSplit]:
    annotations = _annotation_folder(folder)
    if annotations is None:
        return {}
    inner = [one for one in folders_in(annotations) if _has_voc(one)]
    if inner and not _has_voc(annotations):
        return {
            canonical_split(without_year(one.name)): VocSplit(
                None, one, (*(path / one.name for path in _image_folders(folder, annotations)), one)
            )
            for one in inner
        }
    return {"train": VocSplit(None, annotations, _image_folders(folder, annotations))}


def _in_split_folders(folder: Path) -> dict[str, VocSplit]:
    splits = {}
    for inner in reversed(folders_in(folder)):  # val after valid: it wins
        annotations = _annotation_folder(inner) or (inner if _has_voc(inner) else None)
        if annotations is not None:
            name = "train" if inner.name in _IMAGE_FOLDERS else canonical_split(inner.name)
            splits[name] = VocSplit(None, annotations, _image_folders(inner, annotations))
    return splits


def _beside(folder: Path) -> dict[str, VocSplit]:
    return {"train": VocSplit(None, folder, (folder,))} if _has_voc(folder) else {}


def _annotation_folder(root: Path) -> Path | None:
    for name in _ANNOTATION_FOLDERS:
        folder = root / name
        if folder.is_dir() and (_has_voc(folder) or any(_has_voc(inner) for inner in folders_in(folder))):
            return folder
    return None


def _image_folders(root: Path, annotations: Path) -> tuple[Path, ...]:
    own = [root / name for name in _IMAGE_FOLDERS]
    return (*(path for path in own if path.is_dir()), annotations, root, *(root.parent / n for n in _IMAGE_FOLDERS[:2]))


def _has_voc(folder: Path) -> bool:
    """Tell whether one of the first XML files in a folder is an annotation file; damaged ones count too."""
    return any(_looks_like_voc(path) for path in islice(files_of_suffix(folder, ".xml"), 8))


def _looks_like_voc(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096).replace(b"\0", b"")
    except OSError:
        return False
    return re.search(rb"<annotation[\s>]", start) is not None
