"""Files of results of one shard, written image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from boxwright.evaluation.coco_results import ResultsWriter
from boxwright.structures import Category
from boxwright_runtime import Detections
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.masks import to_json

_ROWS, _DETECTIONS = 1024, 1 << 16
"""Images and detections that are in memory at most, and in one row group of Parquet."""


@runtime_checkable
class ShardWriter(Protocol):
    """A file of results that is open."""

    def write(self, image_id: int | str, file_name: str, detections: Detections) -> None:
        """Write the detections of an image."""

    def skip(self, image_id: int | str, file_name: str, reason: str) -> None:
        """Write that an image could not be read."""


@contextmanager
def write_coco(path: Path, categories: Sequence[Category], *, has_text_ids: bool) -> Iterator[ShardWriter]:  # noqa: ARG001
    """Write a list in COCO's results form; images that cannot be read are not in it."""
    with path.open("w", encoding="utf-8") as file:
        writer = ResultsWriter(file, [one.id for one in categories])
        yield _CocoShard(writer)
        writer.finish()


class _CocoShard:
    def __init__(self, writer: ResultsWriter) -> None:
        self._writer = writer

    def write(self, image_id: int | str, file_name: str, detections: Detections) -> None:
        self._writer.write(int(image_id), detections, file_name)

    def skip(self, image_id: int | str, file_name: str, reason: str) -> None:
        """Write nothing."""


@contextmanager
def write_parquet(path: Path, categories: Sequence[Category], *, has_text_ids: bool) -> Iterator[ShardWriter]:
    """Write a table with one row an image: image_id, file_name, error (null where it was read) and detections."""
    parquet = import_parquet()
    schema = _make_schema(has_text_ids=has_text_ids)
    with parquet.ParquetWriter(path, schema) as file:
        shard = _ParquetShard(file, schema, categories)
        yield shard
        shard.flush()


class _ParquetShard:
    def __init__(self, file: Any, schema: Any, categories: Sequence[Category]) -> None:
        self._file, self._schema = file, schema
        self._ids = np.array([one.id for one in categories], dtype=np.int64)
        self._names = [one.name for one in categories]
        self._rows: list[tuple[int | str, str, str | None]] = []
        self._detections: list[Detections] = []
        self._count = 0

    def write(self, image_id: int | str, file_name: str, detections: Detections) -> None:
        self._add((image_id, file_name, None), detections)

    def skip(self, image_id: int | str, file_name: str, reason: str) -> None:
        boxes, none = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.float32)
        self._add((image_id, file_name, reason), Detections(boxes, none, none.astype(np.int64)))

    def _add(self, row: tuple[int | str, str, str | None], detections: Detections) -> None:
        self._rows.append(row)
        self._detections.append(detections)
        self._count += len(detections)
        if len(self._rows) >= _ROWS or self._count >= _DETECTIONS:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are in memory as a row group."""
        import pyarrow

        if not self._rows:
            return
        image_ids, file_names, errors = zip(*self._rows, strict=True)
        texts = [name.encode("utf-8", "backslashreplace").decode() for name in file_names]
        offsets = np.cumsum([0, *map(len, self._detections)], dtype=np.int32)
        listed = pyarrow.ListArray.from_arrays(offsets, self._pack_detections(pyarrow))
        columns = [image_ids, texts, errors, listed.cast(self._schema.field("detections").type)]
        self._file.write_batch(
            pyarrow.record_batch(
                [
                    one if isinstance(one, pyarrow.Array) else pyarrow.array(one, field.type)
                    for one, field in zip(columns, self._schema, strict=True)
                ],
                schema=self._schema,
            )
        )
        self._rows, self._detections, self._count = [], [], 0

    def _pack_detections(self, pyarrow: Any) -> Any:
        """Pack the detections of all rows in columns."""
        fields = list(self._schema.field("detections").type.value_type)
        labels = self._join(lambda one: one.labels, np.int64, ())
        boxes = self._join(lambda one: one.boxes, np.float32, (4,))
        boxes[:, 2:] -= boxes[:, :2]
        columns = [
            pyarrow.array(self._ids[labels]),
            pyarrow.array([self._names[label] for label in labels.tolist()], pyarrow.string()),
            pyarrow.array(self._join(lambda one: one.scores, np.float32, ())),
            pyarrow.array(list(boxes), fields[3].type),
            pyarrow.array([row for one in self._detections for row in _list_masks(one)], fields[4].type),
            pyarrow.array([row for one in self._detections for row in _list_std(one)], fields[5].type),
        ]
        return pyarrow.StructArray.from_arrays(columns, fields=fields)

    def _join(self, of: Callable[[Detections], Any], dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        parts = [to_numpy(of(one)).astype(dtype) for one in self._detections]
        return np.concatenate([np.zeros((0, *shape), dtype=dtype), *parts])


def _list_masks(detections: Detections) -> list[Any]:
    if detections.masks is None:
        return [None] * len(detections)
    return [to_json(mask) for mask in detections.masks]


def _list_std(detections: Detections) -> list[Any]:
    if detections.sides_std is None:
        return [None] * len(detections)
    return list(to_numpy(detections.sides_std).astype(np.float32))


def import_parquet() -> Any:
    """Import pyarrow's module for Parquet.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(
            "results in Parquet need pyarrow: pip install 'boxwright[volume]', or give --format coco"
        ) from error
    return parquet


def _make_schema(*, has_text_ids: bool) -> Any:
    import pyarrow as pa

    mask = pa.struct([("size", pa.list_(pa.int32())), ("counts", pa.string())])
    detection = pa.struct(
        [
            ("category_id", pa.int64()),
            ("category_name", pa.string()),
            ("score", pa.float32()),
            ("bbox", pa.list_(pa.float32())),
            ("segmentation", mask),
            ("sides_std", pa.list_(pa.float32())),
        ]
    )
    image_id = pa.string() if has_text_ids else pa.int64()
    return pa.schema(
        [
            ("image_id", image_id),
            ("file_name", pa.string()),
            ("error", pa.string()),
            ("detections", pa.list_(detection)),
        ]
    )
