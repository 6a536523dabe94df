"""Parser of one LabelMe annotation file."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxwright.data.findings import FindingKind
from boxwright.data.readers._image_files import compose_name
from boxwright.data.readers._rows import BoxCorners, bounds, order_corners
from boxwright_runtime.images import as_rgb

SHAPE_WITHOUT_AREA = FindingKind(
    "shape_without_area", "warning", "points, lines and other shapes that are no boxes or polygons left out"
)
MASK_AS_BOX = FindingKind("mask_as_box", "note", "masks of LabelMe, of which only the boxes are read")
GROUPED_SHAPES = FindingKind("grouped_shapes", "note", "groups of shapes, each read as one object")

_ENTRIES = ("shapes", "imagePath", "imageData", "imageHeight", "imageWidth")
_SHAPE_ENTRIES = ("label", "points", "shape_type", "group_id", "difficult")
_ESCAPED_KEY = re.compile(rb'\\[^",:{}\[\]]*"[ \t\r\n]*:')
_POINTS_OF_CIRCLE = 64
_POLYGONS = ("polygon", "rotation", "oriented_rectangle", "")


class LabelmeObject(NamedTuple):
    """One object: its class, corners, outlines x, y, x, y ... and mark."""

    name: str
    corners: BoxCorners
    polygons: tuple[tuple[float, ...], ...]
    difficult: bool


class LabelmeFile(NamedTuple):
    """One annotation file: the image that it names, its (height, width), its objects, findings with details, and the
    faults of shapes that cannot be read."""

    image_name: str
    size: tuple[int, int] | None
    objects: tuple[LabelmeObject, ...]
    findings: tuple[tuple[FindingKind, str], ...]
    faults: tuple[str, ...]


class NotLabelmeError(ValueError):
    """A JSON file of another kind."""


class _Document(msgspec.Struct):
    """The entries that are read; imageData, by far the largest, is passed over."""

    shapes: Any = None
    imagePath: Any = None  # noqa: N815
    imageHeight: Any = None  # noqa: N815
    imageWidth: Any = None  # noqa: N815


class _ImageData(msgspec.Struct):
    imageData: str | None = None  # noqa: N815


_Entries = TypeVar("_Entries", _Document, _ImageData)


@dataclass(frozen=True)
class EmbeddedImage:
    """An image inside its annotation file, decoded at each call.

    Args:
        path: the annotation file.
    """

    path: Path

    def __call__(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        try:
            data = _decode(_read_bytes(self.path), _ImageData).imageData
            with Image.open(io.BytesIO(base64.b64decode(data or "", validate=False))) as image:
                return as_rgb(image)
        except Exception as error:  # on damaged files, Pillow's decoders raise errors of any kind
            raise ValueError(f"{self.path}: its imageData cannot be read: {' '.join(str(error).split())}") from error


def looks_like_labelme(path: Path) -> bool:
    """Tell whether a JSON file has the entries of LabelMe, or is a damaged file of LabelMe; never raise."""
    try:
        data = _read_bytes(path)
    except (OSError, ValueError):
        return False
    try:
        return isinstance(_decode(data, _Document).shapes, list)
    except ValueError:
        return all(b'"%s"' % entry.encode() in data for entry in _ENTRIES[:2])


def parse_labelme(path: Path) -> LabelmeFile:
    """Read an annotation file.

    Raises:
        NotLabelmeError: it has none of the entries of LabelMe.
        ValueError: it cannot be read; one line, with the file.
    """
    try:
        data = _read_bytes(path)
        document = _decode(data, _Document)
        _refuse_doubles(data, document)
    except NotLabelmeError as error:
        raise NotLabelmeError(f"{path} is no LabelMe file: {error}") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document.shapes, list):
        is_other = not any(b'"%s"' % entry.encode() in data for entry in _ENTRIES)
        raise (NotLabelmeError if is_other else ValueError)(f"{path} is no LabelMe file: it has no list 'shapes'")
    findings: list[tuple[FindingKind, str]] = []
    faults: list[str] = []
    shapes: dict[Any, list[LabelmeObject]] = {}
    for number, shape in enumerate(document.shapes, start=1):
        try:
            one, group = _object(shape), _group(shape)
        except _NoAreaError as error:
            findings.append((SHAPE_WITHOUT_AREA, f"shape {number}: {error}"))
            continue
        except ValueError as error:
            faults.append(f"shape {number}: {error}; correct or delete it")
            continue
        if shape.get("shape_type") == "mask":
            findings.append((MASK_AS_BOX, f"shape {number}: {one.name}"))
        shapes.setdefault(number if group is None else (one.name, group), []).append(one)
    for key, members in shapes.items():
        if len(members) > 1:
            findings.append((GROUPED_SHAPES, f"{len(members)} shapes of {key[0]}, group {key[1]}"))
    name = document.imagePath if isinstance(document.imagePath, str) and _is_text(document.imagePath) else ""
    return LabelmeFile(name, _size(document), tuple(map(_unite, shapes.values())), tuple(findings), tuple(faults))


class _NoAreaError(ValueError):
    """A shape of a kind that is left out."""


def _read_bytes(path: Path) -> bytes:
    if not path.is_file() and path.exists():  # reading a pipe would wait for ever
        raise ValueError("it is no file, but a folder, a pipe or a device; remove it")
    return path.read_bytes().removeprefix(b"\xef\xbb\xbf")


def _decode(data: bytes, kind: type[_Entries]) -> _Entries:
    """Decode a file's entries, also where it has NaN or half a letter in a text, as Python's own writer of JSON may."""
    try:
        return msgspec.json.decode(data, type=kind)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    except ValueError as error:
        try:
            document = json.loads(data.decode())
        except (ValueError, RecursionError):
            raise error from None
        if not isinstance(document, dict):
            raise NotLabelmeError("it is no object") from None
        return kind(**{key: document.get(key) for key in kind.__struct_fields__})


def _refuse_doubles(data: bytes, document: _Document) -> None:
    """Raise ``ValueError`` where an entry stands twice in an object: only the last would be read."""
    listed = document.shapes if isinstance(document.shapes, list) else []
    shapes = [shape for shape in listed if isinstance(shape, dict)]
    counts = dict.fromkeys(_ENTRIES, 1) | {key: sum(key in shape for shape in shapes) for key in _SHAPE_ENTRIES}
    if any(data.count(b'"%s"' % key.encode()) > count for key, count in counts.items()) or _ESCAPED_KEY.search(data):
        json.loads(data.decode(), object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        for key in entry.keys() & {*_ENTRIES, *_SHAPE_ENTRIES}:
            if keys.count(key) > 1:
                short = {other: value for other, value in entry.items() if not isinstance(value, list)}
                raise ValueError(
                    f"the entry {key!r} stands {keys.count(key)} times in one object, {reprlib.repr(short)}; delete one"
                )
    return entry


def _group(shape: dict[str, Any]) -> Any:
    group = shape.get("group_id")
    return group if isinstance(group, int | str) and group != "" else None


def _object(shape: Any) -> LabelmeObject:
    if not isinstance(shape, dict):
        raise ValueError(f"it must be an object, not {reprlib.repr(shape)}")
    label = shape.get("label")
    if not isinstance(label, str) or not compose_name(label):
        raise ValueError(f"its label must be a text that is not empty, not {reprlib.repr(label)}")
    if not _is_text(label):
        raise ValueError(f"its label has half a letter of UTF-16, {reprlib.repr(label)}")
    name, kind = compose_name(label), shape.get("shape_type") or ""
    points = _points(shape.get("points"))
    difficult = shape.get("difficult") is True
    if kind in ("rectangle", "mask") and len(points) >= 2:
        return LabelmeObject(name, bounds([_flat(points)]), (), difficult)
    if kind in _POLYGONS and len(points) >= 3:
        return LabelmeObject(name, bounds([_flat(points)]), (_flat(points),), difficult)
    if kind == "circle" and len(points) == 2:
        (x, y), edge = points
        radius = math.dist((x, y), edge)
        corners, _ = order_corners((x - radius, y - radius, x + radius, y + radius))
        return LabelmeObject(name, corners, (_circle(x, y, radius),), difficult)
    raise _NoAreaError(f"{name}, {reprlib.repr(kind or 'no kind')} of {len(points)} points")


def _is_text(value: str) -> bool:
    """Return False for texts with half a letter of UTF-16, which no file can be called, and no file can hold."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _points(points: Any) -> list[tuple[float, float]]:
    if not isinstance(points, list):
        raise ValueError(f"its points must be a list, not {reprlib.repr(points)}")
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))):
            raise ValueError(f"its points must be pairs of finite numbers, not {reprlib.repr(point)}")
    return [(float(x), float(y)) for x, y in points]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and -1e12 < value < 1e12


def _flat(points: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    return tuple(value for point in points for value in point)


def _circle(x: float, y: float, radius: float) -> tuple[float, ...]:
    angles = (2 * math.pi * step / _POINTS_OF_CIRCLE for step in range(_POINTS_OF_CIRCLE))
    return _flat([(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles])


def _unite(members: list[LabelmeObject]) -> LabelmeObject:
    if len(members) == 1:
        return members[0]
    polygons = tuple(part for one in members for part in one.polygons)
    corners = bounds([one.corners for one in members])
    # A box among the outlines leaves no outline of the whole.
    whole = polygons if all(one.polygons for one in members) else ()
    return LabelmeObject(members[0].name, corners, whole, any(one.difficult for one in members))


def _size(document: _Document) -> tuple[int, int] | None:
    sides = (document.imageHeight, document.imageWidth)
    if not all(type(side) is int and 1 <= side < 1e9 for side in sides):
        return None
    return int(sides[0]), int(sides[1])


def embedded_size(path: Path) -> tuple[int, int] | None:
    """Return (height, width) of the image inside an annotation file, or None if it has none that can be read."""
    try:
        image = EmbeddedImage(path)()
    except (ValueError, binascii.Error):
        return None
    return image.shape[0], image.shape[1]
