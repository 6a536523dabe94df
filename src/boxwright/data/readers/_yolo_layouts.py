"""Positions of images in folders of YOLO files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._image_files import files_of_suffix, folders_in, has_file, is_image_name, posix
from boxwright.data.readers._split_claims import Claim, claim_splits
from boxwright.data.readers._yolo_label_files import is_no_label
from boxwright.data.readers._yolo_lists import IMAGE_FOLDERS, OTHER_PATH
from boxwright.data.readers._yolo_paths import literal_paths, resolve_source
from boxwright.data.readers._yolo_yaml import YoloYaml, find_yaml, read_yaml
from boxwright.data.split_names import canonical_split

PATH_TO_NOTHING = FindingKind(
    "path_to_nothing",
    "warning",
    "paths of splits that lead to no folder and no list, left out",
    "correct them, or delete their keys",
)


class YoloSplit(NamedTuple):
    """One split: folders with images and lists of images."""

    sources: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()


def find_yolo_splits(folder: Path) -> dict[str, YoloSplit]:
    """Find all splits of a folder by name.

    Those of all keys of data.yaml whose folders or lists exist, or else:

    - ``images/train/`` with ``labels/train/``, or ``train/images/`` with ``train/labels/``;
    - ``obj.data`` of darknet, or ``train.txt`` with the paths of images;
    - ``train/*.txt`` beside the images;
    - ``images/`` with ``labels/``, or ``*.txt`` beside images and class names, which is the split train.

    A year, as of ``images/train2017``, is a part of a split's name only where another folder differs in nothing else.

    Raises:
        ValueError: data.yaml cannot be read.
    """
    file = find_yaml(folder)
    if file is None:
        return _without_yaml(folder)
    described = read_yaml(file)
    resolved = {
        key: [resolve_source(file.parent, described.root, text, key) for text in texts]
        for key, texts in described.sources.items()
    }
    gone = find_paths_to_nothing(described)
    claims = claim_splits(key for key, paths in resolved.items() if any(paths))
    splits = {
        name: YoloSplit(
            tuple(path for path in resolved[claim.name] if path is not None),
            (*_differences(described, claim.name, resolved[claim.name]), *gone, *claim.findings(name)),
        )
        for name, claim in claims.items()
    }
    return splits or {
        name: split._replace(findings=(*split.findings, *gone)) for name, split in _without_yaml(folder).items()
    }


def find_paths_to_nothing(described: YoloYaml, split: str = "") -> tuple[Finding, ...]:
    """Name the paths of data.yaml, or of one split in it, that lead to no folder and no list."""
    return tuple(
        Finding(PATH_TO_NOTHING, text, f"{key} in {described.file.name}")
        for key, texts in described.sources.items()
        if split in ("", canonical_split(key))
        for text in texts
        if resolve_source(described.file.parent, described.root, text, key) is None
    )


def _differences(described: YoloYaml, key: str, paths: list[Path | None]) -> tuple[Finding, ...]:
    return tuple(
        Finding(OTHER_PATH, text, f"{path}")
        for text, path in zip(described.sources[key], paths, strict=True)
        if path is not None
        and path not in literal_paths(described.file.parent, described.root, text)
        and not (posix(text).startswith("../") and path == described.file.parent / posix(text).replace("../", ""))
    )


def _without_yaml(folder: Path) -> dict[str, YoloSplit]:
    return _darknet(folder) or _by_folders(folder) or _by_lists(folder) or _flat(folder)


def _claimed(claims: Mapping[str, Claim], sources: Mapping[str, Path]) -> dict[str, YoloSplit]:
    return {name: YoloSplit((sources[claim.name],), claim.findings(name)) for name, claim in claims.items()}


def _darknet(folder: Path) -> dict[str, YoloSplit]:
    for file in files_of_suffix(folder, ".data"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        paths = {
            key: resolve_source(folder, "", entries[key], key)
            for key in ("train", "valid", "val", "test")
            if entries.get(key)
        }
        existing = {key: path for key, path in paths.items() if path is not None}
        if existing:
            gone = [key for key, path in paths.items() if path is None]
            findings = tuple(Finding(PATH_TO_NOTHING, entries[key], f"{key} in {file.name}") for key in gone)
            splits = _claimed(claim_splits(existing), existing)
            return {name: split._replace(findings=(*split.findings, *findings)) for name, split in splits.items()}
    return {}


def _by_folders(folder: Path) -> dict[str, YoloSplit]:
    images = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
    inner = folders_in(images) if images is not None and _has_labels(folder / "labels") else []
    sources = {one.name: one for one in inner}
    if sources:
        return _claimed(claim_splits(sources, years=True), sources)
    for one in folders_in(folder):
        own = next((one / name for name in IMAGE_FOLDERS if (one / name).is_dir()), None)
        if own is not None and (one / "labels").is_dir() and _has_labels(one / "labels"):
            sources[one.name] = own
        elif own is None and has_file(one, ".txt") and _labels_beside(one):
            sources[one.name] = one
    return _claimed(claim_splits(sources), sources)


def _by_lists(folder: Path) -> dict[str, YoloSplit]:
    if not _has_labels(folder / "labels") and not any(map(_labels_beside, folders_in(folder))):
        return {}
    lists = {path.stem: path for path in files_of_suffix(folder, ".txt")}
    named = {stem: path for stem, path in lists.items() if canonical_split(stem) in ("train", "val", "test")}
    return _claimed(claim_splits(named), named)


def _flat(folder: Path) -> dict[str, YoloSplit]:
    for name in IMAGE_FOLDERS:
        if (folder / name).is_dir() and (_has_labels(folder / "labels") or _labels_beside(folder / name)):
            return {"train": YoloSplit((folder / name,))}
    return {"train": YoloSplit((folder,))} if _labels_beside(folder) else {}


def _has_labels(folder: Path) -> bool:
    return has_file(folder, ".txt") or any(has_file(inner, ".txt") for inner in folders_in(folder))


def _labels_beside(folder: Path) -> bool:
    """Tell whether some of the first text files in a folder have an image beside them, of the same name."""
    stems = {path.stem for path in islice(files_of_suffix(folder, ".txt"), 1000) if not is_no_label(folder, path.name)}
    if not stems:
        return False
    with os.scandir(folder) as entries:
        return any(os.path.splitext(one.name)[0] in stems and is_image_name(one.name) for one in entries)
