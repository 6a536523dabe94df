"""The file data.yaml of ultralytics, and the files with class names of darknet."""

from __future__ import annotations

import os
import re
import reprlib
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._image_files import check_regular, compose_name, files_of_suffix, posix
from boxwright.data.readers._yolo_paths import has_image, resolve_source
from boxwright.structures import Category

OTHER_NUMBER_OF_CLASSES = FindingKind(
    "other_number_of_classes", "note", "data.yaml whose nc is not the number of its names, which count"
)

NAMES_FILES = ("classes.txt", "obj.names", "_darknet.labels", "predefined_classes.txt", "data/obj.names")
"""Files with a class name in each line, as LabelImg, Label Studio, CVAT and darknet write them."""

_SPLIT_KEYS = ("train", "val", "valid", "validation", "validate", "test", "minival")
_NO_SPLIT_KEYS = (
    *("path", "root", "names", "nc", "download", "category_ids", "kpt_shape", "flip_idx", "images", "labels"),
    *("license", "url", "project", "workspace", "version", "description", "author"),
)
"""Keys of other things, whose text may be the name of a folder nevertheless."""

_LARGEST = 5_000_000
"""Bytes of a YAML file; that of 1,203 classes has 30,000."""


class YoloYaml(NamedTuple):
    """Class names by number, sources of each split's key as they are written, the root of their paths, and ids."""

    file: Path
    categories: tuple[Category, ...]
    sources: dict[str, list[str]]
    root: str
    has_key_points: bool
    category_ids: dict[int, int]
    findings: tuple[Finding, ...]


class _DataLoader(yaml.BaseLoader):
    """YAML in which every value is a text, so that a class ``no`` stays one; without aliases, which can explode."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.constructor.ConstructorError(None, None, "aliases are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(str(key.value) for key, _ in node.value)
        for key, count in counts.items():
            if count > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key[:50]!r} appears twice", node.start_mark)
        return super().construct_mapping(node, deep)


def find_yaml(folder: Path) -> Path | None:
    """Return the file of a folder that names classes and splits; None where there is none."""
    files = sorted(path for suffix in (".yaml", ".yml") for path in files_of_suffix(folder, suffix))
    preferred = sorted(files, key=lambda path: (path.stem not in ("data", "dataset"), path.name))
    if os.path.exists(folder / "data.yaml") and not os.path.isfile(folder / "data.yaml"):
        return folder / "data.yaml"  # a pipe or a folder: reading it says so
    for path in preferred[:8]:
        try:
            document = _load(path)
        except ValueError:
            if path.stem == "data":  # damaged, but there
                return path
            continue
        if ("names" in document or "nc" in document) and (
            any(isinstance(document.get(key), str | list) for key in _SPLIT_KEYS) or _other_sources(path, document)
        ):
            return path
    return None


def read_yaml(path: Path) -> YoloYaml:
    """Read data.yaml.

    Raises:
        ValueError: it is no YAML, or class names or paths are not what they must be.
    """
    document = _load(path)
    names = _names(path, document)
    findings = []
    count = document.get("nc")
    if isinstance(count, str) and count.strip() != str(len(names)):
        findings.append(Finding(OTHER_NUMBER_OF_CLASSES, path.name, f"nc {count[:20]}, {len(names)} names"))
    sources = {}
    for key in _SPLIT_KEYS:
        listed = _paths_of(document.get(key))
        if listed is None:
            raise ValueError(f"{path}: {key!r} must be a path or a list of paths, not {reprlib.repr(document[key])}")
        if listed:
            sources[key] = listed
    sources |= _other_sources(path, document)
    ids = _category_ids(document, names)
    return YoloYaml(path, names, sources, _root(document), "kpt_shape" in document, ids, tuple(findings))


def _root(document: dict[str, Any]) -> str:
    root = document.get("path")
    return root if isinstance(root, str) else ""


def _paths_of(value: Any) -> list[str] | None:
    """Return one path or several as a list without empty ones; None where the value is neither."""
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        return None
    return [one for one in listed if one.strip() not in ("", "null", "~")]


def _other_sources(path: Path, document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the paths of keys with a name of their own, as ``trainval``, that lead to images or lists of them."""
    root = _root(document)

    def find(key: str, texts: list[str]) -> list[Path]:
        paths = (resolve_source(path.parent, root, text, key) for text in texts if "://" not in text)
        return [one for one in paths if one is not None]

    known = [one for key in _SPLIT_KEYS for one in find(key, _paths_of(document.get(key)) or [])]
    others = {}
    for key, value in document.items():
        texts = None if key in _SPLIT_KEYS or key in _NO_SPLIT_KEYS else _paths_of(value)
        # A folder around those of other splits is the root of the data set, not a split.
        paths = [one for one in find(key, texts or []) if not any(one in other.parents for other in known)]
        if texts and any(not one.is_dir() or has_image(one) for one in paths):
            others[key] = texts
    return others


def _load(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file, remembered until it changes."""
    try:
        check_regular(path)
        status = path.stat()
        return _parse(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=64)
def _parse(path: Path, size: int, changed: int, created: int) -> dict[str, Any]:  # noqa: ARG001
    try:
        if size > _LARGEST:
            raise ValueError(f"{path} is too large to be a data.yaml: {size:,} bytes")
        document = yaml.load(path.read_text(encoding="utf-8-sig"), _DataLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} must be a mapping with names, train and val, not {reprlib.repr(document)}")
    return document


def _category_ids(document: dict[str, Any], names: tuple[Category, ...]) -> dict[int, int]:
    """Return the id of each number, where ``boxwright convert-data`` wrote them; else none."""
    ids = document.get("category_ids")
    if not isinstance(ids, list) or len({*map(str, ids)}) != len(names):
        return {}
    if not all(isinstance(one, str) and re.fullmatch(r"-?\d{1,18}", one) for one in ids):
        return {}
    return {category.id: int(one) for category, one in zip(names, ids, strict=True)}


def _names(path: Path, document: dict[str, Any]) -> tuple[Category, ...]:
    names = document.get("names")
    if isinstance(names, str) and names.strip():
        beside = path.parent / posix(names)
        if os.path.isfile(beside):
            return read_names(beside)
    if names is None and str(document.get("nc", "")).isdecimal() and int(document["nc"]) <= 100_000:
        return tuple(Category(number, f"class{number}") for number in range(int(document["nc"])))
    numbered = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(numbered, dict) or not numbered:
        raise ValueError(f"{path}: 'names' must list the class names, not {reprlib.repr(names)}")
    ids = {}
    for key, name in numbered.items():
        if not str(key).isdecimal() or not isinstance(name, str) or not compose_name(name):
            raise ValueError(
                f"{path}: 'names' must have a text for each number from 0 on, not "
                f"{reprlib.repr(name)} for {reprlib.repr(key)}"
            )
        ids[int(key)] = compose_name(name)
    return tuple(Category(number, ids[number]) for number in sorted(ids))


def read_names(path: Path) -> tuple[Category, ...]:
    """Read a file with a class name in each line.

    Raises:
        ValueError: it is no text, or has no line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; save it as UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not all(map(str.strip, lines)):
        raise ValueError(f"{path} must have a class name in each line, and has {'empty ones' if lines else 'none'}")
    return tuple(Category(number, compose_name(line)) for number, line in enumerate(lines))


def find_names(folder: Path, others: list[Path]) -> Path | None:
    """Return the file with class names of a folder that has no data.yaml."""
    candidates = [parent / name for parent in (folder, *others) for name in NAMES_FILES]
    return next((path for path in candidates if path.is_file()), None)
