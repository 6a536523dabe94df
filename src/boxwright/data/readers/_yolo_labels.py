"""Label files of YOLO: a line for each object, its class and fractions of the image's sides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from boxwright.data.findings import FindingKind
from boxwright.data.readers._image_files import check_regular
from boxwright.data.readers._rows import BoxCorners, bounds, number_of

CONFIDENCE_IGNORED = FindingKind(
    "confidence_ignored", "note", "objects with a confidence behind their coordinates, which is ignored"
)
KEY_POINTS_IGNORED = FindingKind("key_points_ignored", "note", "objects with key points, which are not read")
DECIMAL_COMMAS = FindingKind("decimal_commas", "note", "lines with decimal commas, read as points")
FAR_BEYOND_IMAGE = FindingKind(
    "far_beyond_image", "warning", "boxes that reach more than a tenth beyond their image, clipped"
)

_SLIGHTLY = 0.1
_PIXELS = 2.0
"""Fractions above this are pixels, or a misplaced point."""

Find = Callable[[FindingKind, str], None]


class YoloObject(NamedTuple):
    """One object: the number of its class, corners and outline, in fractions."""

    number: int
    corners: BoxCorners
    polygon: tuple[float, ...]


def parse_labels(path: Path, *, has_key_points: bool, find: Find, fault: Callable[[str], None]) -> list[YoloObject]:
    """Read a label file.

    Args:
        path: the file; empty where the image has no objects.
        has_key_points: key points follow the box.
        find: takes a finding and its line.
        fault: takes a line that cannot be read, with its number.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no text file, or no file.
    """
    check_regular(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no text file: {error}") from error
    objects = []
    for position, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"line {position}"

        def find_here(kind: FindingKind, detail: str, where: str = where) -> None:
            find(kind, f"{where}: {detail}" if detail else where)

        try:
            objects.append(_object(_tokens(line, find_here), has_key_points, find_here))
        except ValueError as error:
            fault(f"{where}: {error}")
    return objects


def _tokens(line: str, find: Find) -> list[str]:
    tokens = line.split()
    if "," not in line:
        return tokens
    inner = ["," in token.strip(",") for token in tokens[1:]]
    if "." not in line and len(tokens) >= 5 and all(token.count(",") <= 1 for token in tokens) and any(inner):
        find(DECIMAL_COMMAS, "")
        return [token.strip(",").replace(",", ".") for token in tokens]
    return line.replace(",", " ").split()


def _object(tokens: list[str], has_key_points: bool, find: Find) -> YoloObject:
    values = [number_of(token) for token in tokens]
    if None in values:
        wrong = tokens[values.index(None)]
        raise ValueError(f"{wrong[:40]!r} is no finite number; correct or delete the line")
    number, *rest = [value for value in values if value is not None]
    if number != int(number) or number < 0:
        raise ValueError(f"the class is a whole number from 0 on, not {tokens[0][:40]!r}")
    if has_key_points and len(rest) > 4:
        find(KEY_POINTS_IGNORED, "")
        rest = rest[:4]
    elif (len(rest) == 5 or (len(rest) > 6 and len(rest) % 2)) and 0 <= rest[-1] <= 1:
        find(CONFIDENCE_IGNORED, "")
        rest = rest[:-1]
    if len(rest) != 4 and (len(rest) < 6 or len(rest) % 2):
        raise ValueError(
            f"it has {len(rest)} numbers behind the class: a box has 4 (center x, center y, width, height), "
            "a polygon an even number from 6 on"
        )
    if not all(-_PIXELS <= value <= _PIXELS for value in rest):
        far = max(rest, key=abs)
        raise ValueError(f"coordinates are fractions of the image's sides, from 0 to 1, not {far:g}; is it in pixels?")
    one = _box(int(number), rest) if len(rest) == 4 else YoloObject(int(number), bounds([rest]), tuple(rest))
    if min(one.corners) < -_SLIGHTLY or max(one.corners) > 1 + _SLIGHTLY:
        find(FAR_BEYOND_IMAGE, " ".join(f"{value:g}" for value in one.corners))
    return one


def _box(number: int, rest: list[float]) -> YoloObject:
    x, y, width, height = rest
    return YoloObject(number, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), ())
