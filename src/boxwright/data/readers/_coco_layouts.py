"""Positions of annotation files and images in COCO-style folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from boxwright.data.split_names import canonical_split, sort_splits, without_year

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = re.compile(r"(captions|person_keypoints|stuff|panoptic|image_info)_")


class SplitFiles(NamedTuple):
    """The annotation file of one split, and the folders that its images may be in, the likeliest first."""

    annotations: Path
    image_folders: tuple[Path, ...]


def find_all_files(folder: Path) -> dict[str, SplitFiles]:
    """Find all splits of a folder by name: train, val and test first.

    Known layouts, here for the split ``train``:

    - ``annotations/train.json`` with the images in ``images/train/``, ``images/`` or ``train/``;
    - ``annotations/instances_train2017.json``, of any year or none, with the images in ``train2017/``,
      ``images/train2017/`` or ``images/``; where there are several years, the split's name has the year;
    - ``train/_annotations.coco.json`` with the images beside it, as Roboflow exports.

    Folders and files named ``valid`` or ``validation`` serve the split ``val``.
    """
    files = _roboflow(folder) | _official(folder) | _plain(folder)
    return {split: files[split] for split in sort_splits(files)}


def find_files(folder: Path, split: str) -> SplitFiles:
    """Find the files of one split of a folder.

    Raises:
        ValueError: the folder has no such split; names the files that were looked for and the splits there are.
    """
    splits = find_all_files(folder)
    split = split.strip("/")
    if canonical_split(split) in splits:
        return splits[canonical_split(split)]
    for files in splits.values():
        if files.annotations.stem == f"instances_{split}":  # named by its year where only one year is there
            return files
    existing = f"its splits are {', '.join(splits)}" if splits else "it has no annotation file of any split"
    raise ValueError(
        f"no split {split!r} in {folder}: looked for annotations/{split}.json, "
        f"annotations/instances_{split}*.json and {split}/{_ROBOFLOW}; {existing}"
    )


def _plain(folder: Path) -> dict[str, SplitFiles]:
    sources = {}
    for file in sorted((folder / "annotations").glob("*.json"), reverse=True):  # val after valid: it wins
        name = file.stem
        if not name.startswith("instances_") and not _OTHER_TASKS.match(name):
            folders = (folder / "images" / name, folder / "images", folder / name, folder)
            sources[canonical_split(name)] = SplitFiles(file, folders)
    return sources


def _official(folder: Path) -> dict[str, SplitFiles]:
    years: dict[str, list[tuple[str, SplitFiles]]] = {}
    for file in sorted((folder / "annotations").glob("instances_*.json"), reverse=True):
        name = file.stem.removeprefix("instances_")
        folders = (folder / name, folder / "images" / name, folder / "images", folder)
        years.setdefault(canonical_split(without_year(name)), []).append((name, SplitFiles(file, folders)))
    sources = {}
    for split, files in years.items():
        if len(files) == 1:
            sources[split] = files[0][1]
        else:
            sources.update(files)
    return sources


def _roboflow(folder: Path) -> dict[str, SplitFiles]:
    files = sorted(folder.glob(f"*/{_ROBOFLOW}"), reverse=True)
    return {canonical_split(file.parent.name): SplitFiles(file, (file.parent,)) for file in files}
