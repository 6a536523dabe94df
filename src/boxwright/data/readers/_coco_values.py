"""Values of COCO files, read in every form that means one thing, with a count of the forms that are not COCO's own."""

from __future__ import annotations

import json
import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from boxwright.data.findings import Finding, FindingKind

VALUE_CONVERTED = FindingKind(
    "value_converted", "note", "kinds of values in another form than COCO's, read as what they mean"
)
CROWD_KEYS = ("iscrowd", "isCrowd", "is_crowd", "crowd", "ignore")
"""Keys of the mark of crowd regions, COCO's own first."""

_WHOLE_TEXT = re.compile(r"\s*([+-]?[0-9]+)(\.0*)?\s*")
_NUMBER_TEXT = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
_MARKS = {"0": False, "1": True, "false": False, "true": True, "": False, "0.0": False, "1.0": True}
_BOX_KEYS = (("x", "y", "width", "height"), ("left", "top", "width", "height"), ("x", "y", "w", "h"))


class InvalidEntryError(ValueError):
    """The fault of one entry; the caller adds the file and the entry."""


class ValueReader:
    """Reader of single values; what is not in COCO's own form is counted."""

    def __init__(self) -> None:
        self._forms: dict[str, tuple[int, Any]] = {}

    def findings(self) -> list[Finding]:
        """Return one finding for each form that is not COCO's own, with its number and the first value."""
        return [
            Finding(VALUE_CONVERTED, form, f"{count:,} times, the first {reprlib.repr(first)}")
            for form, (count, first) in self._forms.items()
        ]

    def count(self, form: str, value: Any) -> None:
        """Count a value in a form that is not COCO's own, as ``image_id as text``."""
        count, first = self._forms.get(form, (0, value))
        self._forms[form] = count + 1, first

    def whole(self, entry: Mapping[str, Any], key: str) -> int:
        """Return a whole number: also ``64.0``, ``"64"`` and ``"64.0"``.

        Raises:
            InvalidEntryError: it is another value, or missing.
        """
        value = entry.get(key)
        if type(value) is int:  # JSON's true is an int to isinstance
            return value
        if type(value) is float and value.is_integer():
            self.count(f"{key} as fraction", value)
            return int(value)
        match = _WHOLE_TEXT.fullmatch(value) if isinstance(value, str) and len(value) <= 400 else None
        if match is None:
            wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
            raise InvalidEntryError(f"{key!r} must be a whole number, {wrong}")
        self.count(f"{key} as text", value)
        return int(match[1])

    def text(self, entry: Mapping[str, Any], key: str) -> str:
        """Return a text that is not empty.

        Raises:
            InvalidEntryError: it is another value, empty or missing.
        """
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
            raise InvalidEntryError(f"{key!r} must be a text that is not empty, {wrong}")
        return value

    def number(self, value: Any, key: str) -> int | float | None:
        """Return a finite number, also where it is written as text; None for anything else."""
        if isinstance(value, str) and len(value) <= 400 and _NUMBER_TEXT.fullmatch(value):
            self.count(f"{key} as text", value)
            value = float(value)
        # By comparison, because a whole number may be too large for math.isfinite; NaN fails every comparison.
        is_finite = type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max
        return value if is_finite else None

    def box(self, value: Any) -> list[int | float] | None:
        """Return left, top, width and height: also texts of numbers, a list in a text, or an object with clear keys.

        Returns:
            None for anything else.
        """
        if isinstance(value, str) and value.lstrip().startswith("[") and len(value) <= 400:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
            self.count("bbox as text", value)
        if isinstance(value, dict):
            keys = next((keys for keys in _BOX_KEYS if value.keys() == set(keys)), None)
            if keys is None:
                return None
            self.count(f"bbox as object with {', '.join(keys)}", value)
            value = [value[key] for key in keys]
        if not isinstance(value, list) or len(value) != 4:
            return None
        numbers = [self.number(one, "numbers of bbox") for one in value]
        return None if None in numbers else [one for one in numbers if one is not None]

    def crowd(self, entry: Mapping[str, Any]) -> bool:
        """Return the mark of crowd regions, under any of its keys: 0 and 1, false and true, also as texts.

        Raises:
            InvalidEntryError: a mark is another value.
        """
        is_crowd = False
        for key in CROWD_KEYS:
            value = entry.get(key)
            if value is None:
                continue
            mark = _MARKS.get(value.strip().lower()) if isinstance(value, str) else None
            if isinstance(value, int | float) and value in (0, 1):
                mark = bool(value)
            if mark is None:
                raise InvalidEntryError(f"{key} must be 0 or 1, not {reprlib.repr(value)}")
            if type(value) is not int:
                self.count(f"{key} as {'text' if isinstance(value, str) else type(value).__name__}", value)
            if mark and key != "iscrowd" and not is_crowd:
                self.count(f"{key}, a mark of crowd regions", value)
            is_crowd = is_crowd or mark
        return is_crowd

    def size(self, entry: Mapping[str, Any]) -> tuple[int, int] | None:
        """Return (height, width) in pixels; None where one of them is missing or no whole number above 0."""
        values = entry.get("height"), entry.get("width")
        if None in values:
            return None
        try:
            height, width = self.whole(entry, "height"), self.whole(entry, "width")
        except InvalidEntryError:
            height = width = 0
        if height > 0 and width > 0:
            return height, width
        self.count("width and height that are no size, ignored: the image's own counts", list(values[::-1]))
        return None


def is_text_id(value: Any) -> bool:
    """Return True for ids that are texts and no numbers, as ``"a1b2"``."""
    return isinstance(value, str) and bool(value.strip()) and not _NUMBER_TEXT.fullmatch(value)


def polygon_bounds(segmentation: Any) -> list[float] | None:
    """Return left, top, width and height of polygons; None where they are none."""
    if not isinstance(segmentation, list) or not segmentation:
        return None
    points: list[Sequence[float]] = []
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return None
        if not all(type(one) in (int, float) and abs(one) <= sys.float_info.max for one in polygon):
            return None
        points += [*zip(polygon[::2], polygon[1::2], strict=True)]
    left, top = (float(min(axis)) for axis in zip(*points, strict=True))
    right, bottom = (float(max(axis)) for axis in zip(*points, strict=True))
    return [left, top, right - left, bottom - top]
