"""Positions of annotation files and images in COCO-style folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from boxwright.data.split_names import canonical_split, is_split_name, sort_splits, without_year

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = re.compile(r"(captions|person_keypoints|stuff|panoptic|image_info)_")
_AFFIX = re.compile(
    r"^(instances|annotations?|labels?|coco|bbox|via_export)[_.-]|[_.-](coco|labels?|annotations?|bbox)$"
)
_ALL = {
    "default",
    "instances",
    "annotations",
    "annotation",
    "labels",
    "coco",
    "result",
    "_annotations",
    "via_export",
    "all",
}
"""Names, without affixes, of files that hold all images: they are the split train."""

_TABLES = re.compile(rb'"(images|annotations|categories)"\s*:')
_OTHER_FORMATS = re.compile(rb'"(shapes|imageData|_via_img_metadata|regions)"\s*:')
_HEAD = 1 << 16
_MOST_FILES = 50
"""A folder with more JSON files than this has one for each image, and only names of splits are looked at."""

_IMAGES = ("images", "data", "img", "imgs", "JPEGImages")


class SplitFiles(NamedTuple):
    """The annotation file of one split, and the folders that its images may be in, the likeliest first."""

    annotations: Path
    image_folders: tuple[Path, ...]


def find_all_files(folder: Path) -> dict[str, SplitFiles]:
    """Find all splits of a folder by name: train, val and test first.

    Known layouts, here for the split ``train``:

    - ``annotations/train.json``, also ``train_coco.json``, ``train_labels.json`` or ``coco_train.json``, with the
      images in ``images/train/``, ``images/``, ``train/`` or ``data/``;
    - ``annotations/instances_train2017.json``, of any year or none, with the images in ``train2017/``,
      ``images/train2017/`` or ``images/``; where there are several years, the split's name has the year;
    - ``train/_annotations.coco.json`` with the images beside it, as Roboflow exports; also ``train/annotations.json``
      or ``train/labels.json``, with the images beside it, in ``images/`` or in ``data/``;
    - without splits, for all images: ``annotations/instances_default.json`` (CVAT), ``annotations/instances.json``
      (Supervisely), ``result.json`` (Label Studio), ``labels.json`` (FiftyOne), ``annotations.json``,
      ``_annotations.coco.json``; it is the split train.

    Folders and files named ``valid``, ``validate``, ``validation`` or ``dev`` serve the split ``val``.
    """
    try:
        files = _in_split_folders(folder) | _in_annotation_folder(folder) or _at_the_top(folder)
    except OSError:
        return {}
    return {split: files[split] for split in sort_splits(files)}


def find_files(folder: Path, split: str) -> SplitFiles:
    """Find the files of one split of a folder.

    Raises:
        ValueError: the folder has no such split; names the files that were looked for and the splits there are.
    """
    splits = find_all_files(folder)
    split = split.strip("/")
    for name in (split, canonical_split(split)):
        if name in splits:
            return splits[name]
    for files in splits.values():
        if files.annotations.stem in (f"instances_{split}", split):  # named by its year where only one year is there
            return files
    existing = f"its splits are {', '.join(splits)}" if splits else "it has no annotation file of any split"
    raise ValueError(
        f"no split {split!r} in {folder}: looked for annotations/{split}.json, "
        f"annotations/instances_{split}*.json and {split}/{_ROBOFLOW}; {existing}"
    )


def _in_annotation_folder(folder: Path) -> dict[str, SplitFiles]:
    files = _json_files(folder / "annotations")
    return _by_split(folder, files)


def _at_the_top(folder: Path) -> dict[str, SplitFiles]:
    return _by_split(folder, [file for file in _json_files(folder) if _looks_like_coco(file)], only_known=True)


def _in_split_folders(folder: Path) -> dict[str, SplitFiles]:
    splits: dict[str, SplitFiles] = {}
    for inner in sorted(folder.iterdir(), reverse=True):  # val after valid: it wins
        if inner.name.startswith(".") or not inner.is_dir():
            continue
        file = inner / _ROBOFLOW
        if not file.is_file():
            files = _in_annotation_folder(inner) or _at_the_top(inner) if is_split_name(inner.name) else {}
            own = files.get("train") or files.get(canonical_split(inner.name))
            if len(files) != 1 or own is None:
                continue
            file = own.annotations
        folders = (inner, *(inner / name for name in _IMAGES), folder / "images" / inner.name, folder / "images")
        splits[canonical_split(inner.name)] = SplitFiles(file, (*folders, folder))
    return splits


def _by_split(folder: Path, files: list[Path], *, only_known: bool = False) -> dict[str, SplitFiles]:
    """Return the files by the names of their splits: whole names before those with affixes."""
    names: dict[str, list[Path]] = {}
    years: dict[str, list[str]] = {}
    for file in sorted(files, key=lambda file: (_rank(file), file.name)):
        name = _split_of(file)
        if not is_split_name(name) and (only_known or not _looks_like_coco(file)):
            continue
        names.setdefault(name, []).append(file)
        undated = canonical_split(without_year(name)) if _is_official(file) else canonical_split(name)
        if name not in years.setdefault(undated, []):
            years[undated].append(name)
    splits: dict[str, SplitFiles] = {}
    for undated, of_split in years.items():
        for name in of_split:
            split = undated if len(of_split) == 1 else canonical_split(name)
            splits.setdefault(split, SplitFiles(names[name][0], _image_folders(folder, names[name][0], name, undated)))
    return splits


def _image_folders(folder: Path, file: Path, name: str, split: str) -> tuple[Path, ...]:
    inner = tuple(dict.fromkeys((name, file.stem, split, "default")))
    return (
        *(folder / "images" / one for one in inner),
        *(folder / one for one in inner),
        *(folder / one / "images" for one in inner),
        *(folder / one for one in _IMAGES),
        folder,
    )


def _split_of(file: Path) -> str:
    """Return the split in the name of a file; ``train`` for the names of files that hold all images."""
    name = file.name.removesuffix(".json")
    shorter = name
    while not (is_split_name(shorter) or shorter in _ALL) and _AFFIX.search(shorter):
        shorter = _AFFIX.sub("", shorter, count=1)
    if shorter in _ALL:
        return "train"
    return shorter if is_split_name(shorter) else name.removeprefix("instances_")


def _is_official(file: Path) -> bool:
    return file.name.startswith("instances_")


def _rank(file: Path) -> int:
    """Return 0 for whole names of splits, 1 for COCO's, 2 for names with affixes, 3 for files of all images."""
    name = file.name.removesuffix(".json")
    if is_split_name(name):
        return 0
    return (
        1 if _is_official(file) and is_split_name(name.removeprefix("instances_")) else 2 + (_split_of(file) == "train")
    )


def _json_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [file for file in folder.glob("*.json") if not _OTHER_TASKS.match(file.name) and not file.is_dir()]
    if len(files) > _MOST_FILES:
        files = [file for file in files if is_split_name(_split_of(file))]
    return files


def _looks_like_coco(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return False
    return bool(_TABLES.search(head)) and not _OTHER_FORMATS.search(head)
