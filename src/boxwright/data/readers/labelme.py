"""LabelMe: a JSON file for each image, in train/ and val/ or in one folder, which is the split train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boxwright.data.annotations import Annotations
from boxwright.data.findings import FindingKind
from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._claimed_paths import find_rivals
from boxwright.data.readers._image_files import (
    ImageFiles,
    common_folder,
    compose_name,
    files_of_suffix,
    folders_in,
    posix,
    walk_files,
)
from boxwright.data.readers._labelme_file import (
    EmbeddedImage,
    LabelmeFile,
    NotLabelmeError,
    embedded_size,
    looks_like_labelme,
    parse_labelme,
)
from boxwright.data.readers._rows import (
    IMAGE_WITHOUT_ANNOTATION_FILE,
    MARKED_DIFFICULT,
    OTHER_IMAGE_NAME,
    Faults,
    ImageRows,
    numbered,
)
from boxwright.data.split_names import canonical_split, sort_splits
from boxwright.structures import Task

TASK: Task = "detection"

IMAGE_IN_ANNOTATION_FILE = FindingKind(
    "image_in_annotation_file", "note", "images that are in no file, read from imageData of their annotation files"
)
NOT_LABELME = FindingKind("not_labelme", "note", "JSON files that are none of LabelMe left out")

_IN_SPLIT = ("", "annotations", "labels", "json", "jsons")
"""Folders with the JSON files, inside that of a split or of the whole set."""

_IMAGES = ("images", "imgs", "image", "JPEGImages")


class _Split(NamedTuple):
    """The folder with the JSON files of a split, and other folders that could be this split, which are not read."""

    folder: Path
    others: tuple[Path, ...] = ()


def recognizes(folder: Path) -> bool:
    """Return True where one of the first JSON files in the folder or in that of a split is one of LabelMe."""
    return bool(_split_folders(folder))


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first."""
    return sort_splits(_split_folders(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split; the classes are those of all splits, in alphabetical order.

    Rectangles are boxes, polygons and circles are boxes with outlines, and shapes of one class with one group_id are
    one object. Points and lines are left out, and so are shapes and files that cannot be read: findings name them.

    Raises:
        ValueError: there is no such split, or no annotation file can be read.
    """
    folders = _split_folders(folder)
    chosen = folders.get(canonical_split(split.strip("/")))
    if chosen is None:
        there = f"its splits are {', '.join(sort_splits(folders))}" if folders else "it has no JSON file of LabelMe"
        raise ValueError(f"no split {split!r} in {folder}: {there}")
    faults = Faults(chosen.folder)
    own_files = _files(chosen.folder)
    others = [path for one in folders.values() if one != chosen for path in _files(one.folder)]
    parsed = {path: _parse(path, folder, Faults(path)) for path in others}
    parsed |= {path: _parse(path, folder, faults) for path in own_files}
    own = {path: file for path in own_files if (file := parsed[path]) is not None}
    faults.check_rest(own)
    names = sorted({one.name for file in parsed.values() if file is not None for one in file.objects})
    rows = ImageRows(numbered(names))
    rows.findings += faults.findings
    invalid = {finding.subject for finding in faults.findings}
    for path in own_files:
        if path not in own and path.relative_to(folder).as_posix() not in invalid:
            rows.find(NOT_LABELME, path.relative_to(folder).as_posix())
    images = _find_images(folder, chosen.folder, own, rows, own_files)
    base, in_base = common_folder([images[path] or _beside(path, file) for path, file in own.items()])
    for name, (path, file) in zip(in_base, own.items(), strict=True):
        _add(rows, name, path, file, is_embedded=images[path] is None)
    table = rows.table(chosen.folder, (base,), has_category_ids=False)
    rivals = find_rivals(folder, split, *chosen)
    return replace(table, findings=(*rivals, *table.findings))


def unread_files(folder: Path) -> list[Path]:
    """List the JSON files of LabelMe that belong to no split; of each folder, only the first files are looked into."""
    known = [Path(one) for split in _split_folders(folder).values() for one in (split.folder, *split.others)]
    unread: dict[Path, list[Path]] = {}
    for path in _files(folder):
        if not any(path.is_relative_to(one) for one in known):
            unread.setdefault(path.parent, []).append(path)
    return [path for paths in unread.values() if any(map(looks_like_labelme, paths[:4])) for path in paths]


def _parse(path: Path, folder: Path, faults: Faults) -> LabelmeFile | None:
    name = path.relative_to(folder).as_posix()
    try:
        file = parse_labelme(path)
    except NotLabelmeError as error:
        if any(path.with_suffix(suffix).exists() for suffix in SUFFIXES):  # it must be the annotations of this image
            faults.add_file(name, path, error)
        return None
    except ValueError as error:
        faults.add_file(name, path, error)
        return None
    for fault in file.faults:
        faults.add_entry(name, fault)
    return file


def _split_folders(folder: Path) -> dict[str, _Split]:
    named: dict[str, list[tuple[str, Path]]] = {}
    for inner in folders_in(folder):
        if inner.name in _IN_SPLIT:
            for one in filter(_has_labelme, folders_in(inner)):
                named.setdefault(canonical_split(one.name), []).append((one.name, one))
        else:
            own = next((inner / name for name in _IN_SPLIT if _has_labelme(inner / name)), None)
            if own is not None:
                named.setdefault(canonical_split(inner.name), []).append((inner.name, own))
    if set(named) <= set(_IMAGES):
        whole = [folder / name for name in (*_IN_SPLIT, *_IMAGES) if _has_labelme(folder / name)]
        whole = whole or [path for paths in named.values() for _, path in paths]
        return {"train": _Split(whole[0])} if whole else {}
    splits = {}
    for split, paths in named.items():
        # A folder of the split's own name first, and of the same names that at the top.
        (_, first), *rest = sorted(paths, key=lambda one: (one[0] != split, len(one[1].parts), one[0]))
        splits[split] = _Split(first, tuple(path for _, path in rest))
    return splits


def _has_labelme(folder: Path) -> bool:
    return any(looks_like_labelme(path) for path in islice(files_of_suffix(folder, ".json"), 4))


def _files(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(walk_files(folder)) if name.lower().endswith(".json")]


def _find_images(
    folder: Path, split: Path, files: dict[Path, LabelmeFile], rows: ImageRows, all_files: Sequence[Path]
) -> dict[Path, Path | None]:
    """Return the image of each annotation file: the one that it names, or else the one that is called like it.

    Images that belong to none of all files, those included that cannot be read, are findings.
    """
    parents = dict.fromkeys([split, split.parent, folder])
    candidates = dict.fromkeys([split, *(parent / name for parent in parents for name in _IMAGES)])
    listed = [ImageFiles(one) for one in candidates if one.is_dir()]
    images: dict[Path, Path | None] = {}
    for path, file in files.items():
        named = path.parent / posix(file.image_name) if file.image_name else path
        if named != path and os.path.isfile(named):
            images[path] = Path(named)
            continue
        stem = str(PurePosixPath(path.relative_to(split).as_posix()).with_suffix(""))
        by_stem = next((one.folder / name for one in listed if (name := one.find_stem(stem))), None)
        base = PurePosixPath(posix(file.image_name)).name
        by_name = next((one.folder / name for one in listed if base and (name := one.find(base))), None)
        images[path] = by_name or by_stem
        if by_name is None and by_stem is not None:
            rows.find(OTHER_IMAGE_NAME, path.name, file.image_name)
    known = {os.path.realpath(image) for image in images.values() if image is not None}
    stems = {compose_name(path.stem) for path in all_files}
    for one in listed[:1]:
        for name in one.names:
            if os.path.realpath(one.folder / name) not in known and compose_name(PurePosixPath(name).stem) not in stems:
                rows.find(IMAGE_WITHOUT_ANNOTATION_FILE, name)
    return images


def _beside(path: Path, file: LabelmeFile) -> Path:
    """Return the path of an image that is not there, for messages."""
    return path.parent / (PurePosixPath(posix(file.image_name)).name or f"{path.stem}.jpg")


def _add(rows: ImageRows, name: str, path: Path, file: LabelmeFile, *, is_embedded: bool) -> None:
    size = embedded_size(path) if is_embedded else None
    if size is not None:
        rows.find(IMAGE_IN_ANNOTATION_FILE, path.name)
        rows.add_image(name, size, source=EmbeddedImage(path))
    else:
        rows.add_image(name, file.size)
    for kind, detail in file.findings:
        rows.find(kind, path.name, detail)
    for one in file.objects:
        rows.add_object(rows.label_of[one.name], one.corners, one.polygons, crowd=one.difficult)
        if one.difficult:
            rows.find(MARKED_DIFFICULT, path.name, one.name)
