"""Where the annotation files and images of a COCO-style folder are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = re.compile(r"(captions|person_keypoints|stuff|panoptic|image_info)_")
_OTHER_NAMES = {"valid": "val", "validation": "val"}

_FIRST = ("train", "val", "test")


class Source(NamedTuple):
    """One split: its annotation file, and the folders that its images may be in, likeliest first."""

    annotations: Path
    image_folders: tuple[Path, ...]


def find_sources(data: Path) -> dict[str, Source]:
    """All splits of a folder by name: train, val and test first.

    Known layouts, here for the split ``train``:

    - ``annotations/train.json`` with the images in ``images/train/``, ``images/`` or ``train/``;
    - ``annotations/instances_train2017.json``, of any year or none, with the images in ``train2017/``,
      ``images/train2017/`` or ``images/``; where there are several years, the split's name has the year;
    - ``train/_annotations.coco.json`` with the images beside it, as Roboflow exports.

    Folders and files named ``valid`` or ``validation`` serve the split ``val``.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not a folder, or it is empty.
    """
    if not data.exists():
        raise FileNotFoundError(f"data folder {data} does not exist")
    if not data.is_dir():
        raise ValueError(f"{data} is a file; give the data folder, or this file and its images as explicit paths")
    if not any(data.iterdir()):
        raise ValueError(f"data folder {data} is empty")
    found = _roboflow(data) | _official(data) | _plain(data)
    return {split: found[split] for split in sorted(found, key=lambda name: (_rank(name), name))}


def find_source(data: Path, split: str) -> Source:
    """One split of a folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no such split; says what was looked for and which splits there are.
    """
    sources = find_sources(data)
    split = split.strip("/")
    if canonical_split(split) in sources:
        return sources[canonical_split(split)]
    for source in sources.values():
        if source.annotations.stem == f"instances_{split}":  # asked for by its year where only one year is there
            return source
    splits = f"its splits are {', '.join(sources)}" if sources else "it has no annotation file of any split"
    raise ValueError(
        f"no split {split!r} in {data}: looked for annotations/{split}.json, "
        f"annotations/instances_{split}*.json and {split}/{_ROBOFLOW}; {splits}"
    )


def canonical_split(name: str) -> str:
    """What a split goes by: ``val`` for ``valid`` and ``validation``, else its own name."""
    return _OTHER_NAMES.get(name, name)


def without_year(name: str) -> str:
    """``train`` for ``train2017``."""
    return re.sub(r"\d{4}$", "", name) or name


def _plain(data: Path) -> dict[str, Source]:
    sources = {}
    for file in sorted((data / "annotations").glob("*.json"), reverse=True):  # val after valid: it wins
        name = file.stem
        if not name.startswith("instances_") and not _OTHER_TASKS.match(name):
            folders = (data / "images" / name, data / "images", data / name, data)
            sources[canonical_split(name)] = Source(file, folders)
    return sources


def _official(data: Path) -> dict[str, Source]:
    years: dict[str, list[tuple[str, Source]]] = {}
    for file in sorted((data / "annotations").glob("instances_*.json"), reverse=True):
        name = file.stem.removeprefix("instances_")
        folders = (data / name, data / "images" / name, data / "images", data)
        years.setdefault(canonical_split(without_year(name)), []).append((name, Source(file, folders)))
    sources = {}
    for split, files in years.items():
        if len(files) == 1:
            sources[split] = files[0][1]
        else:
            sources.update(files)
    return sources


def _roboflow(data: Path) -> dict[str, Source]:
    files = sorted(data.glob(f"*/{_ROBOFLOW}"), reverse=True)
    return {canonical_split(file.parent.name): Source(file, (file.parent,)) for file in files}


def _rank(split: str) -> int:
    return next((rank for rank, name in enumerate(_FIRST) if split.startswith(name)), len(_FIRST))
