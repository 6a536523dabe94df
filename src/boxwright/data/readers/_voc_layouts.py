"""Positions of annotation files, split lists and images in folders of Pascal VOC files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boxwright.data.findings import Finding
from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._image_files import (
    check_regular,
    compose_name,
    files_of_suffix,
    folders_in,
    posix,
    walk_files,
)
from boxwright.data.readers._split_claims import claim_splits
from boxwright.data.split_names import canonical_split

_ANNOTATION_FOLDERS = ("annotations/xmls", "annotations/xml", "Annotations", "annotations", "xmls", "xml", "labels")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "image", "imgs", "img")
_SUFFIXES = frozenset((".xml", *SUFFIXES))
_MARK = re.compile(r"(?<=\S)\s+(-1|0|1)$")
"""The end of a line in a list of one class, as ``dog_train.txt``."""


class VocSplit(NamedTuple):
    """One split: its list, if it has one, the folder of its annotation files, where its images may be, and findings."""

    list_file: Path | None
    annotations: Path
    image_folders: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()

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
    return list(_lines(list_file))


def _lines(list_file: Path) -> tuple[str, ...]:
    try:
        check_regular(list_file)
        status = list_file.stat()
        return _read_lines(list_file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except (OSError, ValueError) as error:
        reason = str(error).removeprefix(f"{list_file} ")
        raise ValueError(f"{list_file} is no list of images: {reason}") from error


@lru_cache(maxsize=256)
def _read_lines(list_file: Path, size: int, changed: int, created: int) -> tuple[str, ...]:  # noqa: ARG001
    text = list_file.read_text(encoding="utf-8-sig")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def without_mark(line: str) -> str:
    """Return a line of a list without the mark -1, 0 or 1 that those of one class have."""
    return _MARK.sub("", line)


def stem_of(name: str) -> str:
    """Return the name of an annotation file or image without its suffix, and without that of an image in a list."""
    name = compose_name(posix(name))
    if "//" in name or "/./" in name:
        name = str(PurePosixPath(name))
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in _SUFFIXES else name


def annotation_files(folder: Path) -> dict[str, str]:
    """Return all annotation files of a folder by their names without suffix, with forward slashes."""
    names = sorted(name for name in walk_files(folder) if name.lower().endswith(".xml"))
    return {stem_of(name): os.path.join(folder, name) for name in names}


def _listed(folder: Path) -> dict[str, VocSplit]:
    roots = [root for root in _roots(folder) if (root / "ImageSets").is_dir() and _annotation_folder(root)]
    splits: dict[str, VocSplit] = {}
    for root in roots:
        lists = sorted([*(root / "ImageSets" / "Main").glob("*.txt")] or [*(root / "ImageSets").glob("*.txt")])
        claims = claim_splits(stem for stem in _lists_of_splits({file.stem: file for file in lists}))
        if set(claims) in ({"default"}, {"trainval"}):
            claims["train"] = claims.popitem()[1]
        annotations = _annotation_folder(root)
        assert annotations is not None
        folders = _image_folders(root, annotations)
        for name, claim in claims.items():
            own = name if len(roots) == 1 else _with_folder(name, root.name)
            file = next(one for one in lists if one.stem == claim.name)
            splits[own] = VocSplit(file, annotations, folders, claim.findings(own))
    return splits


def _lists_of_splits(lists: dict[str, Path]) -> Iterator[str]:
    """Yield the names of lists that are splits: neither of one class, nor all images of train and val once more.

    ``dog_val`` is the list of one class where there is a list ``val`` with all its images.
    """
    for stem, file in lists.items():
        wholes = [path for other, path in lists.items() if other and stem.endswith(f"_{other}") and stem != f"_{other}"]
        if any(_is_within(file, (whole,)) for whole in wholes):
            continue
        others = tuple(lists[other] for other in ("train", "val") if other in lists)
        if stem == "trainval" and "train" in lists and _is_within(file, others):
            continue
        yield stem


def _is_within(file: Path, others: tuple[Path, ...]) -> bool:
    """Tell whether all images of a list are in others; False where one of them cannot be read."""
    try:
        return _are_all_in(_lines(file), frozenset().union(*map(_lines, others)))
    except ValueError:  # an error where its split is opened
        return False


@lru_cache(maxsize=256)
def _are_all_in(lines: tuple[str, ...], others: frozenset[str]) -> bool:
    return all(line in others or without_mark(line) in others for line in lines)


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
    inner = {one.name: one for one in folders_in(annotations) if _has_voc(one)}
    if inner and not _has_voc(annotations):
        folders = _image_folders(folder, annotations)
        return {
            split: VocSplit(
                None,
                inner[claim.name],
                (*(path / claim.name for path in folders), inner[claim.name]),
                claim.findings(split),
            )
            for split, claim in claim_splits(inner, years=True).items()
        }
    return {"train": VocSplit(None, annotations, _image_folders(folder, annotations))}


def _in_split_folders(folder: Path) -> dict[str, VocSplit]:
    folders = {}
    for inner in folders_in(folder):
        annotations = _annotation_folder(inner) or (inner if _has_voc(inner) else None)
        if annotations is not None:
            folders[inner.name] = (inner, annotations)
    unnamed = [name for name in _IMAGE_FOLDERS if name in folders]
    if unnamed and "train" not in map(canonical_split, folders):
        folders["train"] = folders.pop(unnamed[0])
    splits = {}
    for split, claim in claim_splits(folders).items():
        inner, annotations = folders[claim.name]
        splits[split] = VocSplit(None, annotations, _image_folders(inner, annotations), claim.findings(split))
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
    return any(looks_like_voc(path) for path in islice(files_of_suffix(folder, ".xml"), 8))


def looks_like_voc(path: Path) -> bool:
    """Tell whether a file begins as an annotation file does."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            start = file.read(4096).replace(b"\0", b"")
    except (OSError, ValueError):
        return False
    return re.search(rb"<annotation[\s>]", start, re.IGNORECASE) is not None
