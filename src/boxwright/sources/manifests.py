"""Lists of images in files: paths one a line, JSON lines, Parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from boxwright.sources.locations import open_location
from boxwright.sources.remote import is_address, local_path
from boxwright.sources.source_image import SourceImage
from boxwright_runtime.printable_names import printable

_COLUMNS = ("path", "file_name")
"""Names of the column of paths; the first one that is there."""


class _Entry(NamedTuple):
    path: Any
    id: Any = None


def list_manifest(location: str) -> Iterator[SourceImage]:
    """List the images that a file names, in its order.

    Paths are relative to the folder of the file, or absolute, or addresses. JSON lines and Parquet have them as
    ``path`` (or ``file_name``), and perhaps an ``id`` of each image.

    Args:
        location: path or address of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it names none, or an entry is not right.
    """
    folder = location.rpartition("/")[0] if is_address(location) else os.path.dirname(location)
    read, count = MANIFESTS[_suffix(location)], 0
    with open_location(location) as file:
        try:
            for one in (_locate(entry, folder) for entry in read(file)):
                yield one
                count += 1
        except _FaultError as error:
            raise ValueError(f"{printable(location)}, entry {count + 1:,}: {error}") from None
        except (UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"{printable(location)} is no such list: {type(error).__name__}") from None
    if not count:
        raise ValueError(f"{printable(location)}: no images in this list")


class _FaultError(ValueError):
    """A fault of one entry; the caller adds file and number."""


def is_manifest(location: str) -> bool:
    """Tell whether a file is a list of images, by its name."""
    return _suffix(location) in MANIFESTS


def _suffix(location: str) -> str:
    return os.path.splitext(location)[1].lower()


def _locate(entry: _Entry, folder: str) -> SourceImage:
    path, given = entry
    if not isinstance(path, str) or not path or "\0" in path:
        raise _FaultError(f"the path of an image is text, not {path!r}")
    if given is not None and (isinstance(given, bool) or not isinstance(given, str | int)):
        raise _FaultError(f"the id of an image is a whole number or text, not {given!r}")
    location = path
    if is_address(path):
        location = local_path(path) or path
    elif folder and not os.path.isabs(path):
        location = f"{folder}/{path}" if is_address(folder) else os.path.join(folder, path)
    return SourceImage(path, location, "" if given is None else str(given))


def _read_text(file: IO[bytes]) -> Iterator[_Entry]:
    for line in file:
        # Names of files are bytes, and may be no text in any encoding.
        if path := os.fsdecode(line.rstrip(b"\r\n")):
            yield _Entry(path)


def _read_json_lines(file: IO[bytes]) -> Iterator[_Entry]:
    for line in file:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _FaultError(f"no JSON ({error})") from None
        if not isinstance(row, dict):
            raise _FaultError(f"an object with path is meant, not {type(row).__name__}")
        column = next((name for name in _COLUMNS if name in row), None)
        if column is None:
            raise _FaultError("no path")
        yield _Entry(row[column], row.get("id"))


def _read_parquet(file: IO[bytes]) -> Iterator[_Entry]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ValueError("lists in Parquet need pyarrow: pip install 'boxwright[volume]'") from error
    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        column = next((name for name in _COLUMNS if name in names), None)
        if column is None:
            raise _FaultError("no column path")
        columns = [column, *(["id"] if "id" in names else [])]
        for batch in table.iter_batches(columns=columns, batch_size=4096):
            yield from map(_Entry, *(batch.column(name).to_pylist() for name in columns))
    except (ArrowException, OSError) as error:
        raise _FaultError(f"no Parquet ({' '.join(str(error).split())})") from None


MANIFESTS: dict[str, Callable[[IO[bytes]], Iterator[_Entry]]] = {
    ".txt": _read_text,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
"""Readers of lists by the suffix of the file, in lower case."""
