"""Parser of COCO annotation files, with their checks."""

from __future__ import annotations

import json
import reprlib
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.annotations import Annotations, ListedImage
from boxwright.data.mask_file import SUFFIX
from boxwright.structures import Category


class _Annotation(NamedTuple):
    id: int
    image_index: int
    label: int
    bbox: list[int | float]
    area: float
    crowd: bool
    segmentation: Any


class _InvalidEntryError(ValueError):
    """The fault of one entry; the caller adds the file and the entry."""


def parse_coco(path: Path, image_folders: tuple[Path, ...]) -> Annotations:
    """Read and check a COCO annotation file; look at no image.

    Args:
        path: the annotation file.
        image_folders: folders that ``file_name`` may be relative to, the likeliest first.

    Returns:
        Categories are sorted by id; images are in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, no COCO file, or contradicts itself; names the first fault.
    """
    document = _load_json(path)
    categories = _categories(path, _table(path, document, "categories"))
    images = _images(path, _table(path, document, "images"))
    rows = _annotations(path, _table(path, document, "annotations"), images, categories)
    segmentations = tuple(row.segmentation for row in rows)
    return Annotations(
        path=path,
        image_folders=image_folders,
        categories=categories,
        images=images,
        image_index=np.array([row.image_index for row in rows], dtype=np.int64),
        labels=np.array([row.label for row in rows], dtype=np.int64),
        bbox_xywh=np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4),
        area=np.array([row.area for row in rows], dtype=np.float64),
        crowd=np.array([row.crowd for row in rows], dtype=np.bool_),
        annotation_ids=tuple(row.id for row in rows),
        segmentations=segmentations if any(segmentations) else (),
        mask_folders=(path.parent,),
    )


def _load_json(path: Path) -> Any:
    if not path.is_file():
        problem = "is a folder, not an annotation file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"annotation file {path} {problem}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}; "
            "is it cut off, or not the annotation file?"
        ) from error
    except (
        ValueError,
        RecursionError,
    ) as error:  # not UTF-8, numbers of thousands of digits, endless nesting
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _table(path: Path, document: Any, key: str) -> list[dict[str, Any]]:
    if not isinstance(document, dict):
        raise ValueError(
            f"{path} is not a COCO annotation file: it holds {_kind(document)} where an object with images, "
            "annotations and categories must be"
        )
    if key not in document:
        keys = ", ".join(map(reprlib.repr, list(document)[:5])) or "nothing"
        raise ValueError(f"{path} is not a COCO annotation file: it has no {key!r}, only {keys}")
    table = document[key]
    if not isinstance(table, list):
        raise ValueError(f"{path}: {key!r} must be a list, not {_kind(table)}")
    if not table and key != "annotations":
        raise ValueError(f"{path}: {key!r} is empty; there is nothing to read")
    for position, entry in enumerate(table):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {key}[{position}] must be an object, not {_kind(entry)}")
    return table


def _categories(path: Path, table: list[dict[str, Any]]) -> tuple[Category, ...]:
    categories = []
    for position, entry in enumerate(table):
        try:
            categories.append(Category(id=_whole(entry, "id"), name=_text(entry, "name")))
        except _InvalidEntryError as error:
            raise ValueError(f"{path}: categories[{position}]: {error}") from None
    _must_be_unique(path, "category id", (category.id for category in categories))
    _must_be_unique(path, "category name", (category.name for category in categories))
    return tuple(sorted(categories, key=lambda category: category.id))


def _images(path: Path, table: list[dict[str, Any]]) -> tuple[ListedImage, ...]:
    images = []
    for position, entry in enumerate(table):
        try:
            images.append(ListedImage(_whole(entry, "id"), _file_name(entry), _size(entry)))
        except _InvalidEntryError as error:
            raise ValueError(f"{path}: images[{position}]: {error}") from None
    _must_be_unique(path, "image id", (image.id for image in images))
    return tuple(images)


def _annotations(
    path: Path,
    table: list[dict[str, Any]],
    images: tuple[ListedImage, ...],
    categories: tuple[Category, ...],
) -> list[_Annotation]:
    index_of = {image.id: index for index, image in enumerate(images)}
    label_of = {category.id: label for label, category in enumerate(categories)}
    rows = []
    for position, entry in enumerate(table):
        try:
            rows.append(_annotation(entry, index_of, label_of))
        except _InvalidEntryError as error:
            name = f"annotation {reprlib.repr(entry['id'])}" if "id" in entry else f"annotations[{position}]"
            image_id = entry.get("image_id")
            if isinstance(image_id, int) and image_id in index_of:
                name += f" of image {images[index_of[image_id]].file_name!r}"
            raise ValueError(f"{path}: {name}: {error}") from None
    _must_be_unique(path, "annotation id", (row.id for row in rows))
    return rows


def _annotation(entry: dict[str, Any], index_of: dict[int, int], label_of: dict[int, int]) -> _Annotation:
    annotation_id = _whole(entry, "id")
    image_id = _whole(entry, "image_id")
    if image_id not in index_of:
        raise _InvalidEntryError(f"image_id {image_id} is not in 'images'; add the image or delete the annotation")
    category_id = _whole(entry, "category_id")
    if category_id not in label_of:
        raise _InvalidEntryError(
            f"category_id {category_id} is not in 'categories'; add the category or delete the annotation"
        )
    bbox = entry.get("bbox")
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_finite, bbox))):
        raise _InvalidEntryError(
            "bbox must be four finite numbers [left, top, width, height], "
            f"not {reprlib.repr(bbox)}; correct or delete the annotation"
        )
    area = entry.get("area")
    if area is None:
        area = float(bbox[2]) * float(bbox[3])
    elif not _is_finite(area):
        raise _InvalidEntryError(f"area must be a finite number, not {reprlib.repr(area)}; correct or leave it out")
    crowd = entry.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise _InvalidEntryError(f"iscrowd must be 0 or 1, not {reprlib.repr(crowd)}")
    shape = _segmentation(entry)
    return _Annotation(annotation_id, index_of[image_id], label_of[category_id], bbox, area, bool(crowd), shape)


def _segmentation(entry: dict[str, Any]) -> Any:
    segmentation = entry.get("segmentation") or None
    if isinstance(segmentation, str) and segmentation.lower().endswith(SUFFIX):
        return _file_name(entry, "segmentation")
    if not (segmentation is None or isinstance(segmentation, list | dict)):
        raise _InvalidEntryError(
            f"segmentation must be polygons, an RLE or the name of a PNG file, not {reprlib.repr(segmentation)}; "
            "correct it or leave it out"
        )
    return segmentation


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if type(value) is not int:  # JSON's true is an int to isinstance
        wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
        raise _InvalidEntryError(f"{key!r} must be a whole number, {wrong}")
    return value


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
        raise _InvalidEntryError(f"{key!r} must be a text that is not empty, {wrong}")
    return value


def _file_name(entry: dict[str, Any], key: str = "file_name") -> str:
    name = _text(entry, key).replace("\\", "/")  # as exported on Windows
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
        raise _InvalidEntryError(
            f"{key!r} {reprlib.repr(name)} leaves the image folder; give a path inside that folder"
        )
    return name


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    if entry.get("height") is None or entry.get("width") is None:
        return None
    return _whole(entry, "height"), _whole(entry, "width")


def _is_finite(value: Any) -> bool:
    # By comparison, because a whole number may be too large for math.isfinite; NaN fails every comparison.
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max


def _must_be_unique(path: Path, what: str, values: Iterable[int | str]) -> None:
    repeated = [value for value, times in Counter(values).items() if times > 1]
    if repeated:
        first = ", ".join(map(reprlib.repr, repeated[:3])) + (", ..." if len(repeated) > 3 else "")
        raise ValueError(f"{path}: {len(repeated)} {what}(s) occur more than once: {first}; make them unique")


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
