"""Regular entries of COCO annotation files, many at once: what is not entirely regular is left to ``_coco_entries``."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator, Sequence
from itertools import chain
from types import GenericAlias
from typing import Any, NamedTuple

import msgspec
import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.listed_images import NO_SIZE, ListedImages
from boxwright.data.packing import Ids, PackedTexts, pack_ids
from boxwright.data.readers._coco_entries import SPECIAL_KEYS, AnnotationEntry
from boxwright.data.segmentations import Segmentations

CHUNK_BYTES = 2**22
"""Bytes of a table that are decoded together, about."""

_EXACT = 2.0**53
_BETWEEN = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*\{")
_BRACKETS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_TRIES = 16
"""Ends of a chunk that are tried; then brackets are counted, which takes longer than a few tries."""

_ESCAPED_KEY = re.compile(rb'\\[^",:{}\[\]]*"[ \t\r\n]*:')
_KEYS = {"images", "annotations", "categories", "id", "image_id", "category_id", "bbox", "area", "segmentation"}
_KEYS |= {"file_name", "width", "height", "name", "counts", "size", "iscrowd", *SPECIAL_KEYS}


class IrregularError(ValueError):
    """Entries that must be read one by one."""


class CocoRows(NamedTuple):
    """Annotations of a chunk, or of the whole file; see ``Annotations``."""

    ids: Ids
    image_index: Int64[np.ndarray, " n"]
    category_ids: Ids
    bbox: Float64[np.ndarray, "n 4"]
    area: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    segmentations: Segmentations

    @classmethod
    def of_entries(cls, entries: Sequence[AnnotationEntry]) -> CocoRows:
        """Pack entries that were read one by one."""
        return cls(
            pack_ids([row.id for row in entries]),
            np.array([row.image_index for row in entries], dtype=np.int64),
            pack_ids([row.category_id for row in entries]),
            np.array([row.bbox for row in entries], dtype=np.float64).reshape(-1, 4),
            np.array([row.area for row in entries], dtype=np.float64),
            np.array([row.crowd for row in entries], dtype=np.bool_),
            Segmentations.pack([row.segmentation for row in entries]),
        )


class _Document(msgspec.Struct):
    images: msgspec.Raw
    annotations: msgspec.Raw
    categories: msgspec.Raw


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    height: int | msgspec.UnsetType | None = msgspec.UNSET
    width: int | msgspec.UnsetType | None = msgspec.UNSET


_NONE = msgspec.Raw(b"")
_OPTIONAL = ("area", "iscrowd", "segmentation", *SPECIAL_KEYS)
_Annotation: Any = msgspec.defstruct(
    "_Annotation",
    [
        ("id", int),
        ("image_id", int),
        ("category_id", int),
        ("bbox", tuple[float, float, float, float]),
        ("area", float | None | msgspec.UnsetType, msgspec.UNSET),
        ("iscrowd", int | None | msgspec.UnsetType, msgspec.UNSET),
        ("segmentation", msgspec.Raw, _NONE),
        *((key, msgspec.Raw, _NONE) for key in SPECIAL_KEYS),
    ],
    gc=False,
)
_document = msgspec.json.Decoder(_Document)
_images = msgspec.json.Decoder(list[_Image])
_annotations: Any = msgspec.json.Decoder(GenericAlias(list, (_Annotation,)))
_raws = msgspec.json.Decoder(list[msgspec.Raw])
_polygons = msgspec.json.Decoder(list[list[list[float]]])


def split_document(data: bytes) -> dict[str, tuple[int, int]]:
    """Return the begin and end of the three tables of a file.

    Raises:
        IrregularError: it is no such file, or not plain JSON in UTF-8.
        ValueError: a key stands twice in it.
    """
    try:
        document = _document.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IrregularError(str(error)) from error
    begin = np.frombuffer(data, dtype=np.uint8).ctypes.data
    spans = {}
    for key in ("images", "annotations", "categories"):
        raw = memoryview(getattr(document, key))
        start = np.frombuffer(raw, dtype=np.uint8).ctypes.data - begin
        spans[key] = (start, start + len(raw))
    rest, last = [], 0
    for start, end in sorted(spans.values()):
        if data[start : start + 1] != b"[":
            raise IrregularError("a table is no list")
        rest += [data[last:start], b"0"]
        last = end
    try:
        load_chunk(b"".join([*rest, data[last:]]).decode())
    except DoubledKeyError:
        raise
    except (ValueError, RecursionError) as error:
        raise IrregularError(str(error)) from error
    return spans


def split_table(data: bytes, span: tuple[int, int]) -> Iterator[bytes]:
    """Cut a table into lists of whole entries, as JSON.

    Args:
        data: the file.
        span: begin and end of the table in it.
    """
    start, end = span[0] + 1, span[1] - 1
    while start < end:
        stop, match = end, _BETWEEN.search(data, start + CHUNK_BYTES, end)
        for _ in range(_TRIES):
            # Also between the objects of a list inside an entry there is such a place: then brackets stay open.
            if match is None or _is_json(data[start : match.start() + 1]):
                break
            match = _BETWEEN.search(data, match.start() + 1, end)
        else:
            match = _find_end(data, start, end)
        if match is not None:
            stop = match.start() + 1
        yield b"[" + data[start:stop] + b"]"
        start = end if match is None else match.end() - 1


def _find_end(data: bytes, start: int, end: int) -> re.Match[bytes] | None:
    """Find the first place between two entries behind a chunk's length, by the depth of the brackets."""
    depth = 0
    for token in _BRACKETS.finditer(data, start, end):
        letter = data[token.start()]
        depth += (letter in b"[{") - (letter in b"]}")
        if depth == 0 and token.end() > start + CHUNK_BYTES:
            match = _BETWEEN.match(data, token.start(), end)
            if match is not None:
                return match
    return None


def load_chunk(chunk: str) -> Any:
    """Return JSON as ``json.loads`` does.

    Raises:
        ValueError: it is no JSON, or one of COCO's keys stands twice in an object.
    """
    return json.loads(chunk, object_pairs_hook=without_doubles)


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs of JSON.

    Raises:
        ValueError: one of COCO's keys stands twice.
    """
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        for key in entry:
            if key in _KEYS and keys.count(key) > 1:
                text = reprlib.repr({other: value for other, value in entry.items() if not isinstance(value, list)})
                raise DoubledKeyError(f"the key {key!r} stands {keys.count(key)} times in one object, {text}")
    return entry


class DoubledKeyError(ValueError):
    """A key that stands twice in one object; the caller adds the file."""


def read_regular_images(chunk: bytes) -> ListedImages:
    """Read images.

    Raises:
        IrregularError: one of them is to be read by itself.
    """
    images = _decode(_images, chunk)
    sizes = [(_side(one.height), _side(one.width)) for one in images]
    keys = {"id": len(images), "file_name": len(images)}
    keys |= {key: sum(getattr(one, key) is not msgspec.UNSET for one in images) for key in ("height", "width")}
    _refuse_doubles(chunk, keys)
    if not all(one.file_name.strip() for one in images):
        raise IrregularError("a name is empty")
    if any(min(size) <= 0 and size != (NO_SIZE, NO_SIZE) for size in sizes):
        raise IrregularError("a size is none")
    try:
        packed = np.array(sizes, dtype=np.int64).reshape(-1, 2)
    except OverflowError as error:
        raise IrregularError(str(error)) from error
    return ListedImages(pack_ids([one.id for one in images]), PackedTexts.pack(one.file_name for one in images), packed)


def read_regular_annotations(chunk: bytes, index: ImageIndex, category_ids: Int64[np.ndarray, " k"]) -> CocoRows:
    """Read annotations.

    Args:
        chunk: a list of them, as JSON.
        index: of the images.
        category_ids: of the categories, in ascending order.

    Raises:
        IrregularError: one of them is to be read by itself.
    """
    entries = _decode(_annotations, chunk)
    special = [key for key in SPECIAL_KEYS if key.encode() in chunk]
    _refuse_special(entries, special)
    areas = [one.area for one in entries]
    crowds = [one.iscrowd for one in entries]
    raws = [bytes(one.segmentation) for one in entries]
    keys = dict.fromkeys(("id", "image_id", "category_id", "bbox"), len(entries))
    keys |= {
        "area": len(areas) - areas.count(msgspec.UNSET),
        "iscrowd": len(crowds) - crowds.count(msgspec.UNSET),
        "segmentation": len(raws) - raws.count(b""),
        **{key: sum(bytes(getattr(one, key)) != b"" for one in entries) for key in special},
    }
    if chunk.count(b'"') != 2 * sum(keys.values()) + sum(raw.count(b'"') for raw in raws):
        _refuse_doubles(chunk, keys)
    if not {0, 1, None, msgspec.UNSET}.issuperset(crowds):
        raise IrregularError("iscrowd is neither 0 nor 1")
    bbox = np.fromiter(chain.from_iterable(one.bbox for one in entries), np.float64, 4 * len(entries)).reshape(-1, 4)
    area = np.array([np.nan if type(one) is not float else one for one in areas], dtype=np.float64)
    unstated = np.isnan(area)
    with np.errstate(over="ignore"):
        area[unstated] = (bbox[:, 2] * bbox[:, 3])[unstated]
    categories = pack_ids([one.category_id for one in entries])
    if not isinstance(categories, np.ndarray) or not np.isin(categories, category_ids).all():
        raise IrregularError("a category is not there")
    return CocoRows(
        pack_ids([one.id for one in entries]),
        index.find([one.image_id for one in entries]),
        categories,
        bbox,
        area,
        np.array([one == 1 for one in crowds], dtype=np.bool_),
        _read_segmentations(raws),
    )


class ImageIndex:
    """Index of images by their ids.

    Args:
        ids: of all images, each once.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids if isinstance(ids, np.ndarray) else None
        if self._ids is not None:
            self._order = np.argsort(self._ids, kind="stable")
            self._sorted = self._ids[self._order]

    def find(self, image_ids: Sequence[int]) -> Int64[np.ndarray, " n"]:
        """Return the index of each image.

        Raises:
            IrregularError: one is not there, or ids have more than 64 bits.
        """
        packed = pack_ids(image_ids)
        if self._ids is None or not isinstance(packed, np.ndarray):
            raise IrregularError("ids have more than 64 bits")
        at = np.searchsorted(self._sorted, packed).clip(max=len(self._sorted) - 1)
        if (self._sorted[at] != packed).any():
            raise IrregularError("an image is not there")
        return np.asarray(self._order[at])


def _read_segmentations(raws: list[bytes]) -> Segmentations:
    polygons: list[list[list[float]]] = [[]] * len(raws)
    texts = [b""] * len(raws)
    indices = []
    for index, raw in enumerate(raws):
        if raw.startswith(b"["):
            indices.append(index)
        elif raw.startswith(b"{") and raw[1:].lstrip() != b"}":
            texts[index] = raw
        elif raw not in (b"", b"null") and not raw.startswith(b"{"):
            raise IrregularError("a segmentation is neither polygons nor run lengths")
    for key in (b'"counts"', b'"size"'):
        if any(text.count(key) > 1 for text in texts) or any(b"\\u" in text for text in texts):
            raise IrregularError("run lengths may have a key twice")
    if indices:
        decoded = _decode(_polygons, b"[" + b",".join([raws[index] for index in indices]) + b"]")
        for index, one in zip(indices, decoded, strict=True):
            polygons[index] = one
    packed = Segmentations.of_polygons(polygons, PackedTexts.pack_bytes(texts))
    if len(packed.values) and np.abs(packed.values).max() > _EXACT:
        raise IrregularError("a polygon has numbers that are not exact")
    return packed


def _decode(decoder: Any, chunk: bytes) -> list[Any]:
    try:
        if not chunk.isascii():
            chunk.decode()
        entries: list[Any] = decoder.decode(chunk)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IrregularError(str(error)) from error
    return entries


def _refuse_special(entries: Sequence[Any], special: Sequence[str]) -> None:
    """Raise where a key is used that marks crowd regions in another way."""
    for key in special:
        if not {b"", b"0", b"null"}.issuperset([bytes(getattr(one, key)) for one in entries]):
            raise IrregularError(f"an entry has {key}")


def _refuse_doubles(chunk: bytes, keys: dict[str, int]) -> None:
    """Raise where a key may stand twice in an entry, by the number of entries that have it."""
    counts_fit = all(chunk.count(b'"%s"' % key.encode()) == count for key, count in keys.items())
    if not counts_fit or _ESCAPED_KEY.search(chunk):
        load_chunk(chunk.decode())


def _is_json(entries: bytes) -> bool:
    try:
        _raws.decode(b"[" + entries + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _side(value: Any) -> int:
    return value if type(value) is int else NO_SIZE
