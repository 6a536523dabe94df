"""Parser of COCO annotation files: the tables in chunks, fast where all of their entries are regular."""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.annotations import Annotations
from boxwright.data.listed_images import ListedImages
from boxwright.data.packing import Ids, join_columns, join_ids, list_ids, pack_ids
from boxwright.data.readers._coco_chunks import (
    CocoRows,
    DoubledKeyError,
    ImageIndex,
    IrregularError,
    load_chunk,
    read_regular_annotations,
    read_regular_images,
    split_document,
    split_table,
)
from boxwright.data.readers._coco_entries import EntryReader
from boxwright.data.segmentations import Segmentations


def parse_coco(path: Path, image_folders: tuple[Path, ...]) -> Annotations:
    """Read and check a COCO annotation file; look at no image.

    Args:
        path: the annotation file.
        image_folders: folders that ``file_name`` may be relative to, the likeliest first.

    Returns:
        Categories are sorted by id; images are in the file's order. Images and annotations that cannot be read are left
        out; each is a finding of the severity error.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, no COCO file, or contradicts itself in its classes or images.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        problem = f"is {kind}, not an annotation file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"annotation file {path} {problem}")
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        try:
            return _parse(path, image_folders, _Chunks(path, data))
        except IrregularError:
            return _parse(path, image_folders, _Loaded(path, _load_json(path, data)))
    except DoubledKeyError as error:
        raise ValueError(f"{path}: {error}; delete one of them") from None


class _Chunks:
    """The tables of a file that is plain JSON, as bytes."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.spans = path, data, split_document(data)

    def entries(self, key: str) -> list[dict[str, Any]]:
        start, end = self.spans[key]
        return _objects(self.path, {key: _load(self.data[start:end])}, key)

    def images(self, reader: EntryReader) -> ListedImages:
        try:
            images = ListedImages.join(
                [read_regular_images(one) for one in split_table(self.data, self.spans["images"])]
            )
            if not len(images) or not _are_unique(images.ids):
                raise IrregularError("ids are not unique")
        except IrregularError:
            return ListedImages.pack(reader.read_images(self.entries("images")))
        return images

    def rows(self, reader: EntryReader, images: ListedImages) -> Iterator[CocoRows]:
        index, exact = ImageIndex(images.ids), _ExactIndex(images)
        known = pack_ids(sorted(reader.category_ids))
        start = 0
        for chunk in split_table(self.data, self.spans["annotations"]):
            try:
                if not isinstance(known, np.ndarray):
                    raise IrregularError("category ids have more than 64 bits")
                rows = read_regular_annotations(chunk, index, known)
                count = len(rows.area)
            except IrregularError:
                entries = _load(chunk)
                rows = _read_entries(self.path, reader, entries, start, exact)
                count = len(entries)
            yield rows
            start += count


class _Loaded:
    """The tables of a file that only Python's own reader of JSON accepts."""

    def __init__(self, path: Path, document: Any) -> None:
        self.path, self.document = path, document

    def entries(self, key: str) -> list[dict[str, Any]]:
        return _objects(self.path, self.document, key)

    def images(self, reader: EntryReader) -> ListedImages:
        return ListedImages.pack(reader.read_images(self.entries("images")))

    def rows(self, reader: EntryReader, images: ListedImages) -> Iterator[CocoRows]:
        yield _read_entries(self.path, reader, _table(self.path, self.document, "annotations"), 0, _ExactIndex(images))


class _ExactIndex:
    """Index of images by ids of any size, made when it is first needed."""

    def __init__(self, images: ListedImages) -> None:
        self.images = images
        self._index: dict[int, int] = {}

    def __call__(self) -> dict[int, int]:
        if not self._index:
            self._index = {image_id: index for index, image_id in enumerate(list_ids(self.images.ids))}
        return self._index


def _parse(path: Path, image_folders: tuple[Path, ...], tables: _Chunks | _Loaded) -> Annotations:
    reader = EntryReader(path)
    reader.read_categories(tables.entries("categories"))
    images = tables.images(reader)
    chunks = list(tables.rows(reader, images))
    ids = join_ids([chunk.ids for chunk in chunks])
    if not _are_unique(ids):
        ids = pack_ids(list(reader.settle_annotation_ids(list_ids(ids))))
    categories_of_rows = join_ids([chunk.category_ids for chunk in chunks])
    categories, label_of = reader.number_classes(_count(categories_of_rows))
    segmentations = Segmentations.join([chunk.segmentations for chunk in chunks])
    return Annotations(
        path=path,
        image_folders=image_folders,
        categories=categories,
        images=images,
        image_index=join_columns([chunk.image_index for chunk in chunks], np.int64),
        labels=_labels(categories_of_rows, label_of),
        bbox_xywh=join_columns([chunk.bbox for chunk in chunks], np.float64).reshape(-1, 4),
        area=join_columns([chunk.area for chunk in chunks], np.float64),
        crowd=join_columns([chunk.crowd for chunk in chunks], np.bool_),
        annotation_ids=ids,
        segmentations=segmentations if segmentations.has_any() else (),
        mask_folders=(path.parent,),
        findings=tuple(reader.findings),
    )


def _read_entries(path: Path, reader: EntryReader, entries: Sequence[Any], start: int, exact: _ExactIndex) -> CocoRows:
    """Read a part of the annotations one by one."""
    count = next((at for at, entry in enumerate(entries) if not isinstance(entry, dict)), len(entries))
    rows = reader.read_annotations(entries[:count], start, exact.images, exact())
    if count < len(entries):
        raise ValueError(f"{path}: annotations[{start + count}] must be an object, not {_kind(entries[count])}")
    return CocoRows.of_entries(rows)


def _are_unique(ids: Ids) -> bool:
    if isinstance(ids, np.ndarray):
        ascending = bool((ids[1:] > ids[:-1]).all())
        return ascending or len(np.unique(ids)) == len(ids)
    return len(set(ids)) == len(ids)


def _count(ids: Ids) -> dict[int, int]:
    if isinstance(ids, np.ndarray):
        values, counts = np.unique(ids, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    return Counter(ids)


def _labels(category_ids: Ids, label_of: dict[int, int]) -> Any:
    if not isinstance(category_ids, np.ndarray):
        return np.array([label_of[one] for one in category_ids], dtype=np.int64)
    values, inverse = np.unique(category_ids, return_inverse=True)
    return np.array([label_of[one] for one in values.tolist()], dtype=np.int64)[inverse]


def _load(chunk: bytes) -> Any:
    """Load a part of the file; where that fails, the whole file is loaded, and the fault is found there."""
    try:
        return load_chunk(chunk.decode())
    except DoubledKeyError:
        raise
    except (ValueError, RecursionError) as error:
        raise IrregularError(str(error)) from error


def _load_json(path: Path, data: bytes) -> Any:
    try:
        return load_chunk(data.decode())
    except DoubledKeyError:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}; "
            "is it cut off, or not the annotation file?"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}; save it in UTF-8") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise ValueError(f"{path} is not valid JSON: {error}") from error


def _table(path: Path, document: Any, key: str) -> list[Any]:
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
    return table


def _objects(path: Path, document: Any, key: str) -> list[dict[str, Any]]:
    table = _table(path, document, key)
    for position, entry in enumerate(table):
        if not isinstance(entry, dict):
            raise ValueError(f"{path}: {key}[{position}] must be an object, not {_kind(entry)}")
    return table


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "null", bool: "true or false"}
    return kinds.get(type(value), "a number")
