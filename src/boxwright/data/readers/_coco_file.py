"""Parser of COCO annotation files: loads the tables, whose entries are read by ``_coco_entries``."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.annotations import Annotations
from boxwright.data.readers._coco_entries import EntryReader


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
    reader = EntryReader(path)
    reader.read_categories(_table(path, document, "categories"))
    images = reader.read_images(_table(path, document, "images"))
    index_of = {image.id: index for index, image in enumerate(images)}
    rows = reader.read_annotations(_table(path, document, "annotations"), 0, images, index_of)
    ids = reader.settle_annotation_ids([row.id for row in rows])
    categories, label_of = reader.number_classes(Counter(row.category_id for row in rows))
    segmentations = tuple(row.segmentation for row in rows)
    return Annotations(
        path=path,
        image_folders=image_folders,
        categories=categories,
        images=tuple(images),
        image_index=np.array([row.image_index for row in rows], dtype=np.int64),
        labels=np.array([label_of[row.category_id] for row in rows], dtype=np.int64),
        bbox_xywh=np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4),
        area=np.array([row.area for row in rows], dtype=np.float64),
        crowd=np.array([row.crowd for row in rows], dtype=np.bool_),
        annotation_ids=tuple(ids),
        segmentations=segmentations if any(segmentations) else (),
        mask_folders=(path.parent,),
        findings=tuple(reader.findings),
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


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
