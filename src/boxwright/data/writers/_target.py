"""Folders that data sets are written to, whole or not at all, and the images in them."""

from __future__ import annotations

import os
import shutil
import unicodedata
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_check import SUFFIXES
from boxwright.data.masks import mask_fault
from boxwright.data.records import DetectionData, Record
from boxwright.files import check_folder
from boxwright.structures import Category

RENAMED_IMAGE = FindingKind(
    "renamed_image", "note", "images written under another name, which is unique and legal in this format"
)
NUMBERED_ANEW = FindingKind("numbered_anew", "note", "kinds of ids that this format does not hold, numbered anew")
CHANGED_CLASS_NAME = FindingKind(
    "changed_class_name", "warning", "class names that this format does not hold as they are"
)
MASKS_LEFT_OUT = FindingKind("masks_left_out", "warning", "objects whose masks this format does not hold")
AREAS_LEFT_OUT = FindingKind("areas_left_out", "note", "splits whose areas this format does not hold")
BROKEN_OUTLINE = FindingKind(
    "broken_outline", "warning", "objects whose outlines are none, written without them", "correct their polygons"
)

_LONGEST = 200
"""Bytes of a name; most file systems end at 255, and suffixes are added."""

_SUFFIX_OF = {
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "GIF": ".gif",
}


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a folder to write in, which becomes ``folder`` when all is written, and vanishes when anything fails.

    Raises:
        ValueError: ``folder`` is a file, is not empty, or cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and is not overwritten: give another folder")
    made = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".unfinished-{uuid.uuid4().hex[:12]}")
    try:
        unfinished.mkdir()
        yield unfinished
        if folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        for parent in made:
            parent.rmdir()
        raise


class TargetNames:
    """Names of images in the folder of a format, unique in any case of letters and any form of Unicode.

    Args:
        flat: names have no folders.
        by_stem: names differ in more than their suffix, as those of label files must.
    """

    def __init__(self, *, flat: bool, by_stem: bool) -> None:
        self._flat = flat
        self._by_stem = by_stem
        self._taken: set[str] = set()

    def of_split(self, split: str, records: Sequence[Record], findings: list[Finding]) -> list[str]:
        """Return the names of a split's images, with forward slashes, and take findings of those that changed."""
        names = []
        for record, own in zip(records, _names_inside(records), strict=True):
            known = _with_suffix(own, record) if self._by_stem else own
            name = self._unique(_legal(known, flat=self._flat), prefix="" if self._flat else f"{split}/")
            if name != own:
                findings.append(Finding(RENAMED_IMAGE, f"{split}: {_printable(own)}", name))
            names.append(name)
        return names

    def _unique(self, name: str, prefix: str) -> str:
        path = PurePosixPath(name)
        for number in range(1, len(self._taken) + 2):
            candidate = str(path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}"))
            key = str(PurePosixPath(candidate).with_suffix("")) if self._by_stem else candidate
            key = unicodedata.normalize("NFC", f"{prefix}{key}").casefold()
            if key not in self._taken:
                self._taken.add(key)
                return candidate
        raise AssertionError("one of n + 1 names is none of n")


def put_image(record: Record, target: Path, *, link: bool) -> None:
    """Write an image file: a hard link to the record's own if asked for and possible, else a copy.

    Raises:
        FileNotFoundError: there is no such image.
        ValueError: an image that is in no file cannot be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if record.source is not None:
        Image.fromarray(np.asarray(record.read())).save(target)
        return
    source = os.path.realpath(record.path)
    if not (link and _has_linked(source, target)):
        shutil.copyfile(source, target)


def _has_linked(source: str, target: Path) -> bool:
    """Make a hard link; return False where the file system has none, or another file system holds the source."""
    try:
        os.link(source, target)
    except OSError:
        return False
    return True


def merged_categories(splits: Mapping[str, DetectionData]) -> tuple[Category, ...]:
    """Return the classes of all splits, each once: those of the first split, and others behind them."""
    merged = {category.name: category for data in splits.values() for category in reversed(data.categories)}
    order = dict.fromkeys(category.name for data in splits.values() for category in data.categories)
    return tuple(merged[name] for name in order)


def check_splits(splits: Mapping[str, DetectionData]) -> None:
    """Raise ``ValueError`` where there is nothing to write, or a split has a name that no file can have."""
    if not splits:
        raise ValueError("there is no split to write")
    for name in splits:
        if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|') or not name.isprintable():
            raise ValueError(f"the split {name!r} cannot be written: no file can be called so; rename it")


def lost_ids(splits: Mapping[str, DetectionData], *, has_category_ids: bool = False) -> list[Finding]:
    """Name the kinds of ids that a format without ids loses: those that are not 1, 2, 3 ..."""
    findings = []
    for split, data in splits.items():
        annotations = [one for record in data.records for one in record.annotation_ids]
        kinds = {
            "image ids": [record.image_id for record in data.records],
            "annotation ids": annotations,
            "category ids": [] if has_category_ids else [category.id for category in data.categories],
        }
        findings += [
            Finding(NUMBERED_ANEW, f"{kind} of {split}")
            for kind, ids in kinds.items()
            if ids != list(range(1, len(ids) + 1))
        ]
    return findings


def lost_areas(splits: Mapping[str, DetectionData]) -> list[Finding]:
    """Name the splits with areas that are not those of the boxes, as far as objects have no polygons."""
    findings = []
    for split, data in splits.items():
        count = 0
        for record in data.records:
            differ = ~np.isclose(record.area, record.bbox_xywh[:, 2] * record.bbox_xywh[:, 3], rtol=1e-6)
            for index in np.flatnonzero(differ).tolist():
                count += not (record.segmentations and isinstance(record.segmentations[index], list))
        if count:
            findings.append(Finding(AREAS_LEFT_OUT, split, f"{count:,} objects"))
    return findings


def class_names(splits: Mapping[str, DetectionData], findings: list[Finding]) -> dict[str, str]:
    """Return the name to write for each class: in one line, in Unicode's form NFC, without space around it.

    Raises:
        ValueError: two classes would be one.
    """
    names: dict[str, str] = {}
    for category in merged_categories(splits):
        legal = written_name(category.name)
        if legal in names.values():
            other = next(own for own, written in names.items() if written == legal)
            raise ValueError(
                f"the classes {other!r} and {category.name!r} would have one name here; rename one of them"
            )
        if legal != category.name:
            findings.append(Finding(CHANGED_CLASS_NAME, repr(category.name), legal))
        names[category.name] = legal
    return names


def written_name(name: str) -> str:
    """Return a class name in one line, in Unicode's form NFC, without space around it."""
    composed = unicodedata.normalize("NFC", name).strip()
    return "".join(letter if letter.isprintable() else "_" for letter in composed) or "_"


def sound_polygons(record: Record, index: int, where: str, findings: list[Finding]) -> Any:
    """Return an object's polygons; None where it has none, or where they are no outline, which is a finding."""
    segmentation = record.segmentations[index] if record.segmentations else None
    if not segmentation or not isinstance(segmentation, list):
        return None
    fault = mask_fault(record, index)
    if fault is None:
        return segmentation
    findings.append(Finding(BROKEN_OUTLINE, where, fault))
    return None


def shortest(value: float) -> str:
    """Return the shortest text that reads as this number, without a point where it is whole."""
    return str(int(value)) if value == int(value) else repr(float(value))


def _names_inside(records: Sequence[Record]) -> list[str]:
    """Return the names of images inside the folder that all of those in files have in common."""
    parents = [os.path.dirname(os.path.abspath(record.path)) for record in records if record.source is None]
    base = os.path.commonpath(parents) if parents else ""
    return [
        os.path.relpath(os.path.abspath(record.path), base).replace(os.sep, "/")
        if record.source is None
        else PurePosixPath(record.path.name).stem + ".png"
        for record in records
    ]


def _legal(name: str, *, flat: bool) -> str:
    """Return a name that lists and XML files can hold, that is not hidden, and that has the suffix of an image."""
    parts = []
    for part in PurePosixPath(name).parts:
        legal = "".join(letter if letter.isprintable() and letter not in ':*?"<>|\\' else "_" for letter in part)
        parts.append(("_" + legal[1:] if legal.startswith(".") else legal).strip() or "_")
    path = PurePosixPath("_".join(parts) if flat else "/".join(parts))
    stem = path.stem
    while len(stem.encode()) > _LONGEST:
        stem = stem[:-1]
    return str(path.with_name(f"{stem.rstrip('. ') or '_'}{path.suffix}"))


def _with_suffix(name: str, record: Record) -> str:
    """Return a name with a known suffix of images; where it has another one, by the kind of the file."""
    if PurePosixPath(name).suffix.lower() in SUFFIXES:
        return name
    try:
        with Image.open(record.path) as image:
            return name + _SUFFIX_OF.get(image.format or "", ".png")
    except OSError:
        return name + ".jpg"


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8") if text.isprintable() else repr(text)
