"""Parser of one Pascal VOC annotation file."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from boxwright.data.findings import FindingKind
from boxwright.data.readers._image_files import check_regular, compose_name
from boxwright.data.readers._rows import SWAPPED_CORNERS, BoxCorners, bounds, number_of, order_corners

UNKNOWN_ENCODING = FindingKind(
    "wrong_encoding", "note", "annotation files in another encoding than they declare, read as far as it matters"
)
SEVERAL_BOXES = FindingKind(
    "several_boxes",
    "warning",
    "objects with several bndbox, each of which is read as an object, without outlines",
    "give each box an object of its own",
)
PART_LEFT_OUT = FindingKind("part_left_out", "note", "boxes of parts of objects left out")
BOX_OUTSIDE_OBJECT = FindingKind(
    "box_outside_object", "warning", "elements with a bndbox that are no <object> left out", "call them <object>"
)
OBJECT_WITHOUT_BOX = FindingKind("object_without_box", "warning", "objects without bndbox and polygon left out")

_DEEPEST = 64
"""Levels of elements; objects with parts have five."""

_SIDES = ("xmin", "ymin", "xmax", "ymax")


class _RefusedError(ValueError):
    """A document that is well-formed, but not read."""


class VocObject(NamedTuple):
    """One object: its class, corners, outlines x, y, x, y ... and mark."""

    name: str
    corners: BoxCorners
    polygons: tuple[tuple[float, ...], ...]
    difficult: bool


class VocFile(NamedTuple):
    """One annotation file: the image that it names, its (height, width), its objects, findings with details, and the
    faults of objects that cannot be read."""

    image_name: str
    size: tuple[int, int] | None
    objects: tuple[VocObject, ...]
    findings: tuple[tuple[FindingKind, str], ...]
    faults: tuple[str, ...]


class _Element:
    """An element without its attributes; its name in lower case."""

    __slots__ = ("children", "name", "texts")

    def __init__(self, name: str) -> None:
        self.name = name
        self.texts: list[str] = []
        self.children: list[_Element] = []

    def child(self, name: str) -> _Element | None:
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[_Element]:
        return (child for child in self.children if child.name == name)

    def text(self, name: str) -> str:
        child = self.child(name)
        return "" if child is None else "".join(child.texts).strip()


def parse_voc(path: Path) -> VocFile:
    """Read an annotation file, remembered until it changes.

    Raises:
        ValueError: it cannot be read or contradicts itself; one line, with the file.
    """
    try:
        check_regular(path)
        status = path.stat()
        return _parse(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=100_000)
def _parse(path: Path, size: int, time: int) -> VocFile:  # noqa: ARG001
    content = path.read_bytes().lstrip()
    if not content:
        raise ValueError(f"{path} is empty; annotate its image again, or delete it")
    findings: list[tuple[FindingKind, str]] = []
    try:
        root = _tree(content)
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from error
    except (expat.ExpatError, ValueError, LookupError) as error:
        repaired = _decode(content)
        if repaired is None:
            raise ValueError(f"{path} is not valid XML: {error}; is it cut off?") from error
        try:
            root = _tree(repaired)
        except _RefusedError as refused:
            raise ValueError(f"{path}: {refused}") from error
        except (expat.ExpatError, ValueError):
            raise ValueError(f"{path} is not valid XML: {error}; is it cut off?") from error
        findings.append((UNKNOWN_ENCODING, ""))
    if root.name != "annotation":
        raise ValueError(f"{path} is no Pascal VOC file: its root is <{root.name[:50]}>, not <annotation>")
    objects: list[VocObject] = []
    faults: list[str] = []
    elements: list[_Element] = []
    _collect_objects(root, elements, findings)
    for number, element in enumerate(elements, start=1):
        own: list[tuple[FindingKind, str]] = []
        try:
            objects += _objects(element, own)
        except ValueError as error:
            faults.append(f"object {number}: {error}")
            continue
        findings += [(kind, f"object {number}: {detail}") for kind, detail in own]
    return VocFile(root.text("filename"), _size(root), tuple(objects), tuple(findings), tuple(faults))


def _tree(content: bytes) -> _Element:
    """Build the tree of a document; entities are neither declared, expanded nor fetched."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    top = _Element("")
    stack = [top]

    def start(name: str, _: object) -> None:
        element = _Element(name.lower())
        stack[-1].children.append(element)
        stack.append(element)
        if len(stack) > _DEEPEST:
            raise _RefusedError(f"its elements are nested deeper than {_DEEPEST} levels; it is no annotation file")

    def refuse(*declaration: object) -> None:
        # (name, system id, public id, has internal subset): a bare <!DOCTYPE annotation> declares nothing.
        if any(declaration[1:]):
            raise _RefusedError("its DOCTYPE declares entities or names another file, which are not read; delete it")

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda _: stack.pop()
    parser.CharacterDataHandler = lambda text: stack[-1].texts.append(text)
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(content, True)
    return top.children[0]


def _decode(content: bytes) -> bytes | None:
    """Return a document as UTF-8 with U+FFFD for what it does not say; None if the encoding is not the fault."""
    declared = re.match(rb"<\?xml[^>]*encoding\s*=\s*[\"']([A-Za-z0-9._-]+)", content)
    name = declared[1].decode() if declared else "utf-8"
    try:
        codec = codecs.lookup(name).name
        text = content.decode(codec, errors="replace")
    except (LookupError, ValueError):
        text = content.decode("utf-8", errors="replace")
    body = re.sub(r"^\ufeff?\s*<\?xml[^>]*\?>", "", text).lstrip()
    recoded = body.encode("utf-8", errors="replace")
    return recoded if recoded != content and body.startswith("<") else None


def _collect_objects(element: _Element, objects: list[_Element], findings: list[tuple[FindingKind, str]]) -> None:
    """Collect all elements <object> at any level, and name what has a box and is none."""
    for child in element.children:
        if child.name == "object":
            objects.append(child)
            _collect_objects(child, objects, findings)
        elif child.child("bndbox") is None:
            _collect_objects(child, objects, findings)
        else:
            name = child.text("name")
            kind = PART_LEFT_OUT if child.name == "part" else BOX_OUTSIDE_OBJECT
            findings.append((kind, f"<{child.name[:50]}>{f': {name[:50]}' if name else ''}"))


def _objects(element: _Element, findings: list[tuple[FindingKind, str]]) -> list[VocObject]:
    """Return the objects of an element: one for each box, or one for its polygons."""
    name = compose_name(element.text("name"))
    if not name:
        raise ValueError("it has no <name>; give its class")
    if "\ufffd" in name:
        raise ValueError(f"its class {name!r} is not in the encoding that the file declares; save the file as UTF-8")
    polygons = tuple(one for one in map(_polygon, element.all("polygon")) if len(one) >= 6)
    is_difficult = element.text("difficult").lower() in ("1", "true")
    boxes = list(element.all("bndbox"))
    if not boxes and not polygons:
        findings.append((OBJECT_WITHOUT_BOX, name))
        return []
    if not boxes:
        return [VocObject(name, bounds(polygons), polygons, is_difficult)]
    if len(boxes) > 1:
        findings.append((SEVERAL_BOXES, f"{name}, {len(boxes)} boxes"))
        polygons = ()
    return [VocObject(name, _corners(box, findings), polygons, is_difficult) for box in boxes]


def _corners(box: _Element, findings: list[tuple[FindingKind, str]]) -> BoxCorners:
    corners, swapped = order_corners([_coordinate(box, side) for side in _SIDES])
    if swapped:
        findings.append((SWAPPED_CORNERS, " ".join(f"{side} {box.text(side)}" for side in _SIDES)))
    return corners


def _coordinate(element: _Element, name: str) -> float:
    text = element.text(name)
    value = number_of(text)
    if value is None:
        raise ValueError(f"<{name}> must be a finite number, not {text[:50]!r}; correct or delete the object")
    return value


def _polygon(element: _Element) -> tuple[float, ...]:
    """Return the points of an outline, as <x1> <y1> <x2> <y2> ... or as <pt> with <x> and <y>."""
    points = list(element.all("pt"))
    if points:
        return tuple(value for point in points for value in (_coordinate(point, "x"), _coordinate(point, "y")))
    count = sum(re.fullmatch(r"x\d+", child.name) is not None for child in element.children)
    return tuple(_coordinate(element, f"{axis}{number}") for number in range(1, count + 1) for axis in "xy")


def _size(root: _Element) -> tuple[int, int] | None:
    """Return (height, width) where the file states them; the image's own size counts in any case."""
    size = root.child("size")
    if size is None:
        return None
    height, width = number_of(size.text("height")), number_of(size.text("width"))
    if height is None or width is None or not (1 <= height <= 1e9 and 1 <= width <= 1e9):
        return None
    return math.floor(height), math.floor(width)
