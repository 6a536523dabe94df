"""Tables of annotations, remembered outside the data set: a large file, or thousands of small ones, are parsed once.

One file for each annotation file, or for each split of many: a line of JSON that says what follows, then the arrays,
which are mapped into memory and shared by processes. Reading it executes nothing. What is damaged or written by another
version is made anew; what cannot be written is left out, with a note.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.annotations import Annotations
from boxwright.data.cache_folder import cache_folder
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.listed_images import ListedImages
from boxwright.data.packing import PackedTexts
from boxwright.data.segmentations import Segmentations
from boxwright.structures import Category

SMALLEST_BYTES = 2**20
"""Size of an annotation file that is worth remembering."""

SMALLEST_COUNT = 500
"""Number of annotation files of one split that is worth remembering, however small they are."""

_SETTLED_NS = 2_000_000_000
"""A file that was written this shortly before may be written again without another time: it is not remembered."""

_MAGIC = b"boxwright table 1\n"
_ALIGNMENT = 64


def remember_table(
    path: Path,
    image_folders: tuple[Path, ...],
    parse: Callable[[], Annotations],
    *,
    files: Sequence[Path | str] = (),
    facts: Iterable[str] = (),
) -> Annotations:
    """Return the table of an annotation file, or of many: as it is remembered, else parsed, and then remembered.

    Args:
        path: the annotation file; of several, their folder or list.
        image_folders: of the table.
        parse: parses the file or files; reads nothing that neither ``files`` nor ``facts`` name.
        files: all files that are read, where they are several; names, sizes and times of all of them count.
        facts: everything else that the table depends on: the format, the split, names of images and classes. The first
            tells tables of one path apart.

    Raises:
        ValueError: as ``parse`` does.
        FileNotFoundError: as ``parse`` does.
    """
    facts = list(facts)
    try:
        state = _state(path, files, facts)
        name = os.fsencode(path.resolve()) + b"".join(b"\0" + _encoded(fact) for fact in facts[:1])
        file = cache_folder() / "tables" / hashlib.blake2b(name, digest_size=16).hexdigest()
    except (OSError, RuntimeError, ValueError):
        return parse()
    if state.size < SMALLEST_BYTES and len(files) < SMALLEST_COUNT:
        return parse()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, IndexError, RecursionError):
        return _read(file, state.key, path, image_folders)
    table = _packed(parse()) if files else parse()
    if not isinstance(table.images, ListedImages) or time.time_ns() - state.changed < _SETTLED_NS:
        return table
    try:
        if _state(path, files, facts).key == state.key:  # nothing was written meanwhile
            _write(file, state.key, table)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        return replace(table, notes=(*table.notes, f"the parsed table cannot be kept in {file.parent}: {reason}"))
    return table


class _State(NamedTuple):
    """All that a table is made of, bytes of the files, and the time of the last change."""

    key: list[Any]
    size: int
    changed: int


def _state(path: Path, files: Sequence[Path | str], facts: Sequence[str]) -> _State:
    if not files:
        state = path.stat()
        key = [str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ctime_ns, _version()]
        return _State(key, state.st_size, state.st_mtime_ns)
    digest, size, changed = hashlib.blake2b(digest_size=16), 0, 0
    for fact in facts:
        digest.update(_encoded(fact) + b"\0")
    for file in files:
        state = os.stat(file)
        size, changed = size + state.st_size, max(changed, state.st_mtime_ns)
        digest.update(os.fsencode(file) + b"\0%d %d %d\0" % (state.st_size, state.st_mtime_ns, state.st_ctime_ns))
    return _State([str(path.resolve()), digest.hexdigest(), len(files), _version()], size, changed)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _packed(table: Annotations) -> Annotations:
    """Pack images in files and outlines, as they are when they are remembered."""
    if isinstance(table.images, ListedImages) or any(image.source is not None for image in table.images):
        return table
    segmentations = Segmentations.pack(table.segmentations) if table.segmentations else ()
    return replace(table, images=ListedImages.pack(table.images), segmentations=segmentations)


@cache
def _version() -> str:
    """Return a hash of the code that makes the tables: another version may read files in another way."""
    folder = Path(__file__).parent
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted([*folder.glob("*.py"), *folder.glob("readers/*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _columns(table: Annotations) -> dict[str, Any]:
    images = table.images
    assert isinstance(images, ListedImages)
    columns = {
        "image_names": images.names.content,
        "image_name_starts": images.names.starts,
        "image_sizes": images.sizes,
        "image_ids": images.ids,
        "image_index": table.image_index,
        "labels": table.labels,
        "bbox_xywh": table.bbox_xywh,
        "area": table.area,
        "crowd": table.crowd,
        "annotation_ids": table.annotation_ids,
    }
    if isinstance(table.segmentations, Segmentations):
        columns |= {
            "part_starts": table.segmentations.part_starts,
            "value_starts": table.segmentations.value_starts,
            "values": table.segmentations.values,
            "texts": table.segmentations.texts.content,
            "text_starts": table.segmentations.texts.starts,
        }
    return columns


def _write(file: Path, key: list[Any], table: Annotations) -> None:
    columns = _columns(table)
    arrays = {name: np.ascontiguousarray(one) for name, one in columns.items() if isinstance(one, np.ndarray)}
    offset, header = 0, {}
    for name, one in arrays.items():
        header[name] = [
            one.dtype.str,
            list(one.shape),
            offset,
            _checksum(one),
        ]
        offset += -(-one.nbytes // _ALIGNMENT) * _ALIGNMENT
    kinds = list(dict.fromkeys(finding.kind for finding in table.findings))
    text = json.dumps(
        {
            "key": key,
            "arrays": header,
            "lists": {name: list(one) for name, one in columns.items() if isinstance(one, tuple)},
            "categories": [[category.id, category.name] for category in table.categories],
            "mask_folders": [str(folder) for folder in table.mask_folders],
            "has_fractions": table.has_fractions,
            "has_category_ids": table.has_category_ids,
            "notes": table.notes,
            "kinds": [vars(kind) for kind in kinds],
            "findings": [[kinds.index(one.kind), one.subject, one.detail] for one in table.findings],
        }
    ).encode()
    file.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(file) as output:
        output.write(_MAGIC + b"%d %d\n" % (len(text), zlib.crc32(text)) + text)
        begin = -(-output.tell() // _ALIGNMENT) * _ALIGNMENT
        for name, one in arrays.items():
            output.seek(begin + header[name][2])
            output.write(_bytes_of(one))
        output.truncate(begin + offset)


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Any]:
    """Open a file for writing that takes another's place only when it is whole."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as output:
            yield output
        os.replace(name, file)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _read(file: Path, key: list[Any], path: Path, image_folders: tuple[Path, ...]) -> Annotations:
    with file.open("rb") as opened:
        if opened.readline(len(_MAGIC)) != _MAGIC:
            raise ValueError("another format")
        length, checksum = map(int, opened.readline(64).split())
        text = opened.read(length)
        if zlib.crc32(text) != checksum:
            raise ValueError("damaged")
        header = json.loads(text)
        begin = -(-opened.tell() // _ALIGNMENT) * _ALIGNMENT
    if header["key"] != key:
        raise ValueError("of another file")
    columns: dict[str, Any] = {name: tuple(one) for name, one in header["lists"].items()}
    for name, entry in header["arrays"].items():
        columns[name] = _map_array(file, begin, *entry)
    kinds = [FindingKind(**kind) for kind in header["kinds"]]
    return Annotations(
        path=path,
        image_folders=image_folders,
        categories=tuple(Category(*category) for category in header["categories"]),
        images=ListedImages(
            columns["image_ids"],
            PackedTexts(columns["image_names"], columns["image_name_starts"]),
            columns["image_sizes"],
        ),
        image_index=columns["image_index"],
        labels=columns["labels"],
        bbox_xywh=columns["bbox_xywh"],
        area=columns.get("area"),
        crowd=columns.get("crowd"),
        annotation_ids=columns.get("annotation_ids"),
        segmentations=_segmentations(columns),
        mask_folders=tuple(Path(folder) for folder in header["mask_folders"]),
        has_fractions=header["has_fractions"],
        has_category_ids=header["has_category_ids"],
        notes=tuple(header["notes"]),
        findings=tuple(Finding(kinds[kind], name, detail) for kind, name, detail in header["findings"]),
    )


def _segmentations(columns: dict[str, Any]) -> Any:
    if "values" not in columns:
        return ()
    return Segmentations(
        columns["part_starts"],
        columns["value_starts"],
        columns["values"],
        PackedTexts(columns["texts"], columns["text_starts"]),
    )


def _map_array(file: Path, begin: int, dtype: str, shape: list[int], offset: int, checksum: int) -> Any:
    """Map an array into memory; what is written to it reaches no file.

    Raises:
        ValueError: it is damaged.
    """
    if 0 in shape:
        return np.zeros(shape, dtype=np.dtype(dtype))
    mapped = np.memmap(file, dtype=np.dtype(dtype), mode="c", offset=begin + offset, shape=tuple(shape))
    array = mapped.view(np.ndarray)
    if _checksum(array) != checksum:
        raise ValueError("damaged")
    return array


def _checksum(array: Any) -> int:
    return zlib.crc32(_bytes_of(array))


def _bytes_of(array: Any) -> Any:
    """Return an array's bytes without copying them."""
    return array.reshape(-1).view(np.uint8)
