"""Positions of annotation files and images in COCO-style folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boxwright.data.readers._image_files import folders_in
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
"""A folder with more JSON files than this may have one for each image."""

_FIRST_FILES = 4
"""Of so many files, those that are looked into: where none is COCO's, only names of splits count."""

_IMAGES = ("images", "data", "img", "imgs", "JPEGImages")


class SplitFiles(NamedTuple):
    """The annotation file of one split, the folders of its images, the likeliest first, and other files of the split.

    ``others`` could be this split as well, and are not read.
    """

    annotations: Path
    image_folders: tuple[Path, ...]
    others: tuple[Path, ...] = ()

    def before(self, other: SplitFiles | None) -> SplitFiles:
        """Return these files, with another candidate among the others."""
        if other is None:
            return self
        return self._replace(others=(*self.others, other.annotations, *other.others))


def find_all_files(folder: Path) -> dict[str, SplitFiles]:
    """Find all splits of a folder by name: train, val and test first.

    Known layouts, here for the split ``train``:

    - ``annotations/train.json``, also ``train_coco.json``, ``train_labels.json`` or ``coco_train.json``, with the
      images in ``images/train/``, ``images/``, ``train/`` or ``data/``;
    - ``annotations/instances_train2017.json`` or ``train2017.json``, of any year or none, with the images in
      ``train2017/``, ``images/train2017/`` or ``images/``; where there are several years, the split's name has the
      year;
    - ``train/_annotations.coco.json`` with the images beside it, as Roboflow exports; also ``train/annotations.json``
      or ``train/labels.json``, with the images beside it, in ``images/`` or in ``data/``;
    - without splits, for all images: ``annotations/instances_default.json`` (CVAT), ``annotations/instances.json``
      (Supervisely), ``result.json`` (Label Studio), ``labels.json`` (FiftyOne), ``annotations.json``,
      ``_annotations.coco.json``; it is the split train.

    Folders and files named ``valid``, ``validate``, ``validation`` or ``dev`` serve the split ``val``. Of several files
    of one split, one in ``annotations/`` is taken, and there a whole name of a split before one with an affix.
    """
    try:
        inner, files = _in_split_folders(folder), _in_annotation_folder(folder)
        for split, other in inner.items():
            files[split] = files[split].before(other) if split in files else other
        files = files or _at_the_top(folder)
    except OSError:
        return {}
    return {split: files[split] for split in sort_splits(files)}


def find_unread_files(folder: Path) -> list[Path]:
    """Find the annotation files of a folder that no split is read from, nor could be: those are its ``others``."""
    known = {path for files in find_all_files(folder).values() for path in (files.annotations, *files.others)}
    unread = {path for path in _candidates(folder) if path not in known and _looks_like_coco(path)}
    in_annotations = _walk_json(folder / "annotations")
    return sorted(unread | {path for path in in_annotations if path not in known and not path.is_file()})


def _candidates(folder: Path) -> Iterator[Path]:
    yield from _json_files(folder)
    yield from _walk_json(folder / "annotations")
    for inner in folders_in(folder):
        if inner.name != "annotations":
            yield from _json_files(inner)
            yield from _json_files(inner / "annotations")


def _walk_json(folder: Path) -> Iterator[Path]:
    for parent, folders, _ in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from _json_files(Path(parent))


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
    of_split: dict[str, dict[str, SplitFiles]] = {}
    for inner in folders_in(folder):
        file, others = inner / _ROBOFLOW, tuple[Path, ...]()
        if not file.is_file():
            files = _in_annotation_folder(inner) or _at_the_top(inner) if is_split_name(inner.name) else {}
            own = files.get("train") or files.get(canonical_split(inner.name))
            if len(files) != 1 or own is None:
                continue
            file, others = own.annotations, own.others
        folders = (inner, *(inner / name for name in _IMAGES), folder / "images" / inner.name, folder / "images")
        split = canonical_split(inner.name)
        of_split.setdefault(split, {})[inner.name] = SplitFiles(file, (*folders, folder), others)
    splits = {}
    for split, named in of_split.items():
        first, *rest = sorted(named, key=lambda name: (name != split, name))
        splits[split] = named[first]
        for name in rest:
            splits[split] = splits[split].before(named[name])
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
        has_year = _is_official(file) or is_split_name(name)
        undated = canonical_split(without_year(name)) if has_year else canonical_split(name)
        if name not in years.setdefault(undated, []):
            years[undated].append(name)
    splits: dict[str, SplitFiles] = {}
    for undated, of_split in years.items():
        for name in of_split:
            split = undated if len(of_split) == 1 else canonical_split(name)
            file, *others = names[name]
            claim = SplitFiles(file, _image_folders(folder, file, name, undated), tuple(others))
            splits[split] = splits[split].before(claim) if split in splits else claim
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
    name = shorter = file.stem
    while not (is_split_name(shorter) or shorter in _ALL) and _AFFIX.search(shorter):
        shorter = _AFFIX.sub("", shorter, count=1)
    if shorter in _ALL:
        return "train"
    return shorter if is_split_name(shorter) else name.removeprefix("instances_")


def _is_official(file: Path) -> bool:
    return file.name.startswith("instances_")


def _rank(file: Path) -> int:
    """Return 0 for whole names of splits, 1 for COCO's, 2 for names with affixes, 3 for files of all images."""
    name = file.stem
    if is_split_name(name):
        return 0
    return (
        1 if _is_official(file) and is_split_name(name.removeprefix("instances_")) else 2 + (_split_of(file) == "train")
    )


def _json_files(folder: Path) -> list[Path]:
    """List the JSON files in a folder, also pipes: reading one says that it is no file."""
    try:
        with os.scandir(folder) as entries:
            files = [folder / one.name for one in entries if one.name.lower().endswith(".json") and not _is_folder(one)]
    except OSError:
        return []
    files = sorted(file for file in files if not file.name.startswith(".") and not _OTHER_TASKS.match(file.name))
    if len(files) > _MOST_FILES and not any(map(_looks_like_coco, files[:_FIRST_FILES])):
        files = [file for file in files if is_split_name(_split_of(file))]
    return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return True


def _looks_like_coco(file: Path) -> bool:
    try:
        if not file.is_file():  # a pipe would be read for ever
            return False
        with file.open("rb") as opened:
            head = opened.read(_HEAD)
    except OSError:
        return False
    return bool(_TABLES.search(head)) and not _OTHER_FORMATS.search(head)
