"""Columns of annotation tables, recognized by their names or, without a header, by their order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from boxwright.data.readers._rows import number_of

_SYNONYMS = {
    "file": ("filename", "file", "imagename", "imagepath", "path", "filepath", "image", "img", "imgpath", "imageid"),
    "class": ("class", "label", "classname", "labelname", "category", "categoryname", "objectclass"),
    "xmin": ("xmin", "x1", "left", "bboxxmin", "bboxx1", "xtl", "boxxmin"),
    "ymin": ("ymin", "y1", "top", "bboxymin", "bboxy1", "ytl", "boxymin"),
    "xmax": ("xmax", "x2", "right", "bboxxmax", "bboxx2", "xbr", "boxxmax"),
    "ymax": ("ymax", "y2", "bottom", "bboxymax", "bboxy2", "ybr", "boxymax"),
    "x": ("x", "bboxx", "boxx"),
    "y": ("y", "bboxy", "boxy"),
    "w": ("w", "bboxw", "bboxwidth", "boxwidth"),
    "h": ("h", "bboxh", "bboxheight", "boxheight"),
    "width": ("width", "imagewidth", "imgwidth"),
    "height": ("height", "imageheight", "imgheight"),
    "crowd": ("iscrowd", "isgroupof", "crowd", "difficult"),
}
"""Names of columns in lower case, without anything but letters and digits, the likeliest first."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ("x", "y", "w", "h")

SEPARATORS = (",", ";", "\t", "|")


class Columns(NamedTuple):
    """Positions of the columns of a table.

    ``box`` are those of the corners, or of left, top, width and height where ``has_sides``; ``has_header`` says
    that the first row names them.
    """

    file: int
    name: int
    box: tuple[int, int, int, int]
    has_sides: bool = False
    size: tuple[int, int] | None = None
    crowd: int | None = None
    has_header: bool = True


def find_columns(row: Sequence[str]) -> Columns | None:
    """Find the columns of a table from its first row; None where it is no table of boxes."""
    if _is_headless(row):
        return Columns(0, 5, (1, 2, 3, 4), has_header=False)
    positions: dict[str, int] = {}
    names = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in row]
    for meaning, synonyms in _SYNONYMS.items():
        named = [names.index(synonym) for synonym in synonyms if names.count(synonym) == 1]
        if named:
            positions[meaning] = named[0]
    if not {"file", "class"} <= positions.keys():
        return None
    size = (positions["height"], positions["width"]) if {"height", "width"} <= positions.keys() else None
    crowd = positions.get("crowd")
    if set(_CORNERS) <= positions.keys():
        return Columns(positions["file"], positions["class"], _four(positions, _CORNERS), False, size, crowd)
    sides = _sides(positions)
    if sides is None:
        return None
    own_size = size if size is not None and not {*size} & {*sides} else None
    return Columns(positions["file"], positions["class"], sides, True, own_size, crowd)


def missing_columns(row: Sequence[str]) -> list[str]:
    """Return the columns that a row of names lacks to be a table of boxes, for messages."""
    names = {re.sub(r"[^a-z0-9]", "", name.lower()) for name in row}
    needed = ("file", "class", *_CORNERS)
    return [_SYNONYMS[meaning][0] for meaning in needed if not names & set(_SYNONYMS[meaning])]


def _four(positions: dict[str, int], names: Sequence[str]) -> tuple[int, int, int, int]:
    a, b, c, d = (positions[name] for name in names)
    return a, b, c, d


def _sides(positions: dict[str, int]) -> tuple[int, int, int, int] | None:
    """Return left, top, width and height; those called width and height are the box's where there are no others."""
    left, top = positions.get("x", positions.get("xmin")), positions.get("y", positions.get("ymin"))
    width, height = positions.get("w", positions.get("width")), positions.get("h", positions.get("height"))
    if left is None or top is None or width is None or height is None:
        return None
    return left, top, width, height


def _is_headless(row: Sequence[str]) -> bool:
    """Tell whether a row is ``path,x1,y1,x2,y2,class``, or ``path,,,,,`` without an object."""
    if len(row) != 6 or not row[0].strip():
        return False
    values = [cell.strip() for cell in row[1:5]]
    if not any(values):
        return not row[5].strip()
    return all(number_of(value) is not None for value in values)
