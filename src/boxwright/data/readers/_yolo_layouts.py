"""Positions of images and label files in folders of YOLO files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._image_files import (
    compose_name,
    files_of_suffix,
    folders_in,
    has_file,
    is_image_name,
    posix,
    walk_files,
)
from boxwright.data.readers._yolo_yaml import NAMES_FILES, find_yaml, read_yaml
from boxwright.data.split_names import canonical_split, without_year

OTHER_PATH = FindingKind("other_path", "note", "paths that lead nowhere as they are written, found beside data.yaml")

_IMAGE_FOLDERS = ("images", "Images", "JPEGImages")
_NO_LABELS = {PurePosixPath(name).stem.lower() for name in NAMES_FILES} | {"train", "val", "valid", "test", "labels"}


class YoloSplit(NamedTuple):
    """One split: folders with images and lists of images."""

    sources: tuple[Path, ...]
    findings: tuple[Finding, ...] = ()


def find_yolo_splits(folder: Path) -> dict[str, YoloSplit]:
    """Find all splits of a folder by name.

    Those of data.yaml, as far as their folders or lists exist, or else:

    - ``images/train/`` with ``labels/train/``, or ``train/images/`` with ``train/labels/``;
    - ``obj.data`` of darknet, or ``train.txt`` with the paths of images;
    - ``train/*.txt`` beside the images;
    - ``images/`` with ``labels/``, or ``*.txt`` beside images and class names, which is the split train.

    Raises:
        ValueError: data.yaml cannot be read.
    """
    file = find_yaml(folder)
    if file is not None:
        described = read_yaml(file)
        splits = {}
        for name, texts in described.sources.items():
            resolved = [_resolve(file.parent, described.root, text) for text in texts]
            sources = tuple(path for path in resolved if path is not None)
            if sources:
                splits[name] = YoloSplit(sources, _differences(file, described.root, texts, resolved))
        if splits:
            return splits
    return _darknet(folder) or _by_folders(folder) or _by_lists(folder) or _flat(folder)


def _resolve(folder: Path, root: str, text: str) -> Path | None:
    """Find a folder or list where data.yaml says, where it would be if nothing led out of the folder, or by its end."""
    # os.path, unlike Path, has no error for a name that is too long.
    parts = [part for part in PurePosixPath(posix(text)).parts if part not in ("..", ".")]
    tails = [folder.joinpath(*parts[start:]) for start in range(1 if _is_absolute(text) else 0, len(parts))]
    literal = [folder / posix(root) / posix(text), folder / posix(text)]
    inside = tails[:1] if posix(text).startswith("../") else []
    for path in (*inside, *literal, *tails):
        if path != folder and (os.path.isdir(path) or (path.suffix == ".txt" and os.path.isfile(path))):
            return path
    return None


def _is_absolute(text: str) -> bool:
    return posix(text).startswith("/") or posix(text)[1:2] == ":"


def _differences(file: Path, root: str, texts: list[str], paths: list[Path | None]) -> tuple[Finding, ...]:
    literal = {text: (file.parent / posix(root) / posix(text), file.parent / posix(text)) for text in texts}
    return tuple(
        Finding(OTHER_PATH, text, f"{path}" if path else "nowhere")
        for text, path in zip(texts, paths, strict=True)
        if path is None or (path not in literal[text] and not posix(text).startswith("../"))
    )


def _darknet(folder: Path) -> dict[str, YoloSplit]:
    for file in files_of_suffix(folder, ".data"):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        entries = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        paths = {
            canonical_split(key): _resolve(folder, "", entries[key])
            for key in ("train", "valid", "val", "test")
            if entries.get(key)
        }
        splits = {name: YoloSplit((path,)) for name, path in paths.items() if path is not None}
        if splits:
            return splits
    return {}


def _by_folders(folder: Path) -> dict[str, YoloSplit]:
    splits = {}
    images = next((folder / name for name in _IMAGE_FOLDERS if (folder / name).is_dir()), None)
    inner = folders_in(images) if images is not None and _has_labels(folder / "labels") else []
    for one in reversed(inner):
        splits[canonical_split(without_year(one.name))] = YoloSplit((one,))
    if splits:
        return splits
    for one in reversed(folders_in(folder)):
        own = next((one / name for name in _IMAGE_FOLDERS if (one / name).is_dir()), None)
        if own is not None and (one / "labels").is_dir() and _has_labels(one / "labels"):
            splits[canonical_split(one.name)] = YoloSplit((own,))
        elif own is None and has_file(one, ".txt") and _labels_beside(one):
            splits[canonical_split(one.name)] = YoloSplit((one,))
    return splits


def _by_lists(folder: Path) -> dict[str, YoloSplit]:
    if not _has_labels(folder / "labels") and not any(map(_labels_beside, folders_in(folder))):
        return {}
    lists = {canonical_split(path.stem): path for path in sorted(files_of_suffix(folder, ".txt"), reverse=True)}
    return {name: YoloSplit((path,)) for name, path in lists.items() if name in ("train", "val", "test")}


def _flat(folder: Path) -> dict[str, YoloSplit]:
    for name in _IMAGE_FOLDERS:
        if (folder / name).is_dir() and (_has_labels(folder / "labels") or _labels_beside(folder / name)):
            return {"train": YoloSplit((folder / name,))}
    return {"train": YoloSplit((folder,))} if _labels_beside(folder) else {}


def _has_labels(folder: Path) -> bool:
    return has_file(folder, ".txt") or any(has_file(inner, ".txt") for inner in folders_in(folder))


def _labels_beside(folder: Path) -> bool:
    """Tell whether some of the first text files in a folder have an image beside them, of the same name."""
    stems = {path.stem for path in islice(files_of_suffix(folder, ".txt"), 1000)} - _NO_LABELS
    if not stems:
        return False
    with os.scandir(folder) as entries:
        return any(os.path.splitext(one.name)[0] in stems and is_image_name(one.name) for one in entries)


def list_images(source: Path, folder: Path, findings: list[Finding]) -> list[Path]:
    """Return the images of a folder or list.

    Raises:
        ValueError: the list is no text, or empty.
    """
    if source.is_dir():
        return [source / name for name in sorted(walk_files(source)) if is_image_name(name)]
    try:
        lines = [line.strip() for line in source.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source} is no list of images: {error}") from error
    parents: dict[str, Path | None] = {}
    paths = []
    for line in lines:
        path = PurePosixPath(posix(line))
        parent = str(path.parent)
        if parent not in parents:
            parents[parent] = _listed_parent(path, source.parent, folder)
            if parents[parent] is not None and _is_absolute(line) and str(parents[parent]) != parent:
                findings.append(Finding(OTHER_PATH, parent, f"{parents[parent]}"))
        paths.append((parents[parent] or source.parent / path.parent) / path.name)
    return paths


def _listed_parent(path: PurePosixPath, beside: Path, folder: Path) -> Path | None:
    """Return the folder of a listed image: as written, beside the list, in the data folder, or by the path's end."""
    parts = path.parent.parts
    tails = [folder.joinpath(*parts[start:]) for start in range(1 if path.is_absolute() else 0, len(parts) + 1)]
    candidates = [beside / path.parent, folder / path.parent, *tails, *(folder / name for name in _IMAGE_FOLDERS)]
    return next((one for one in candidates if os.path.isfile(one / path.name)), None)


class LabelFiles:
    """Label files by image, from folders that are listed once each.

    Args:
        folder: the data set.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._labels: dict[Path, dict[str, Path]] = {}
        self._images_of: dict[Path, set[Path]] = {}
        self._folders: dict[Path, list[Path]] = {}

    def find(self, image: Path) -> Path | None:
        """Return the label file of an image: in ``labels`` in place of ``images``, beside it, or None."""
        parent = image.parent
        if parent not in self._folders:
            self._folders[parent] = list(dict.fromkeys(self._candidates(parent)))
            for folder in self._folders[parent]:
                self._images_of.setdefault(folder, set()).add(parent)
        stem = compose_name(image.stem)
        return next((one for folder in self._folders[parent] if (one := self._listed(folder).get(stem))), None)

    def without_image(self) -> Iterator[Path]:
        """List the label files in the folders that were searched whose image is in none of its folders."""
        for folder, parents in self._images_of.items():
            stems = {
                compose_name(os.path.splitext(name)[0])
                for parent in parents
                for name in walk_files(parent, deep=False)
                if is_image_name(name)
            }
            for stem, path in sorted(self._listed(folder).items()):
                if stem not in stems:
                    yield path

    def _candidates(self, parent: Path) -> Iterator[Path]:
        parts = parent.parts
        positions = [index for index, part in enumerate(parts) if part in _IMAGE_FOLDERS]
        if positions:
            yield Path(*parts[: positions[-1]], "labels", *parts[positions[-1] + 1 :])
        yield parent
        yield self._folder / "labels"

    def _listed(self, folder: Path) -> dict[str, Path]:
        if folder not in self._labels:
            self._labels[folder] = {
                compose_name(path.stem): path
                for path in files_of_suffix(folder, ".txt")
                if path.stem.lower() not in _NO_LABELS and not path.name.lower().startswith("readme")
            }
        return self._labels[folder]
