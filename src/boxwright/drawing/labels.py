"""Labels: as long as there is room for them beside the objects, and never on each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.drawing.lettering import Lettering, Typesetter
from boxwright.drawing.objects import DrawnObject, Rectangle
from boxwright.drawing.style import DrawingStyle

MOST_COVERED = 0.15
"""Part of an object's box that labels cover at most, all of them together."""

_SMALLEST_LETTERS = 10
_LETTERS_OF_OBJECT = 0.18
"""Size of letters for the root of a small object's area."""

_WIDTH_IN_LETTERS = 10
"""Width of a label that is wider than its box, at most, in sizes of its letters."""

_NARROW_WIDTH = 4
"""The same where there is less room."""

_DENSE = 0.1
"""Part of a drawing that the longest labels of all objects would cover, from which on it is crowded."""

_MOST_OF_BOX = 0.3
"""Area of a label in a crowded drawing, at most, in areas of its box; dots may be larger."""

_ORDER = 0.02
"""Cost of each further position around a box, in parts of covered objects."""


LabelKind = Literal["name", "number", "dot"]


class Label(NamedTuple):
    """A label of a drawing.

    Args:
        object_index: of its object.
        rectangle: left, top, right and bottom, the last two exclusive.
        kind: of its content.
        lettering: None for a dot.
    """

    object_index: int
    rectangle: Rectangle
    kind: LabelKind
    lettering: Lettering | None = None


class _Form(NamedTuple):
    """A form that a label may have; a dot has no letters, but a diameter."""

    kind: LabelKind
    lettering: Lettering | None
    diameter: int = 0

    @property
    def extent(self) -> tuple[int, int]:
        """Width and height."""
        return (self.diameter, self.diameter) if self.lettering is None else self.lettering.label_size


def letter_size(size: tuple[int, int]) -> int:
    """Return the size of letters for a drawing of this width and height, where objects are not small."""
    return max(10, round(min(size) / 36))


def place_labels(objects: Sequence[DrawnObject], size: tuple[int, int], style: DrawingStyle) -> list[Label]:
    """Choose form and position of the labels.

    The first objects choose first. A label lies inside the drawing, overlaps no other, and all labels together cover
    ``MOST_COVERED`` of each box at most; where there is no such position it becomes shorter, and at last is left out.

    Args:
        objects: the most important ones first.
        size: width and height of the drawing.
        style: form and size of letters.
    """
    if style.labels == "none" or not objects:
        return []
    typesetter = Typesetter(style.font)
    forms = [list(_forms(one, size, style, typesetter)) for one in objects]
    is_crowded = sum(math.prod(longest.extent) for longest, *_ in forms) > _DENSE * size[0] * size[1]
    room = _Room([one.box for one in objects], size)
    labels = []
    for index, one in enumerate(objects):
        most = _MOST_OF_BOX * one.side**2 if is_crowded else float("inf")
        for form in forms[index]:
            if form.lettering is not None and math.prod(form.extent) > most:
                continue
            if (rectangle := room.take(one.box, form.extent)) is not None:
                labels.append(Label(index, rectangle, form.kind, form.lettering))
                break
    return labels


def _forms(one: DrawnObject, size: tuple[int, int], style: DrawingStyle, typesetter: Typesetter) -> Iterator[_Form]:
    """Forms of a label from the longest to the shortest."""
    letters = style.font_size or _size_for(one, letter_size(size), size)
    if style.labels == "full":
        width = one.box[2] - one.box[0] + 1
        widest, narrow = (min(size[0], max(width, most * letters)) for most in (_WIDTH_IN_LETTERS, _NARROW_WIDTH))
        for detail, most in ((one.detail, widest), (one.detail, narrow), ("", widest)):
            if (line := typesetter.letter(one.name, detail, letters, most)) is not None:
                yield _Form("name", line)
        if one.detail:
            yield _Form("number", typesetter.letter(f"{one.number}:", one.detail, letters))
    if style.labels in ("full", "short"):
        yield _Form("number", typesetter.letter(str(one.number), "", letters))
    yield _Form("dot", None, max(3, round(0.45 * letters)))


def _size_for(one: DrawnObject, largest: int, size: tuple[int, int]) -> int:
    """Size of letters for an object, in steps of a fifth, so that an image has few of them."""
    smallest = max(_SMALLEST_LETTERS, round(min(size) / 120))
    fitting = _LETTERS_OF_OBJECT * one.side
    letters = float(largest)
    while letters > fitting and letters > smallest:
        letters *= 0.8
    return max(round(letters), min(smallest, largest))


class _Room:
    """Pixels that labels may still cover.

    Args:
        boxes: of the objects, first and last pixels.
        size: width and height of the drawing.
    """

    def __init__(self, boxes: Sequence[Rectangle], size: tuple[int, int]) -> None:
        self._boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        self._boxes[:, 2:] += 1
        self._areas = (self._boxes[:, 2:] - self._boxes[:, :2]).prod(1)
        self._covered = np.zeros(len(boxes))
        self._taken = np.empty((len(boxes), 4))
        self._count = 0
        self._size = size

    def take(self, box: Rectangle, extent: tuple[int, int]) -> Rectangle | None:
        """Take the position around a box where a label covers least; None where it has none."""
        width, height = extent
        if width > self._size[0] or height > self._size[1]:
            return None
        candidates = _positions(box, width, height, self._size)
        labels = self._taken[: self._count]
        overlaps = _intersections(candidates, labels[_near(candidates, labels)])
        free = ~overlaps.any(1)
        near = _near(candidates, self._boxes)
        covered = _intersections(candidates, self._boxes[near]) / self._areas[near]
        free &= (self._covered[near] + covered <= MOST_COVERED).all(1)
        if not free.any():
            return None
        costs = covered.sum(1) + _ORDER * np.arange(len(candidates))
        best = int(np.where(free, costs, np.inf).argmin())
        self._covered[near] += covered[best]
        self._taken[self._count] = candidates[best]
        self._count += 1
        x1, y1, x2, y2 = candidates[best].astype(int).tolist()
        return x1, y1, x2, y2


def _positions(box: Rectangle, width: int, height: int, size: tuple[int, int]) -> Float64[np.ndarray, "n 4"]:
    """Positions of a label around and in its box, the best ones first; all of them inside the drawing."""
    x1, y1, x2, y2 = box
    above, below = y1 - height, y2 + 1
    left, right = (min(max(x, 0), size[0] - width) for x in (x1, x2 + 1 - width))
    top, bottom = (min(max(y, 0), size[1] - height) for y in (y1, y2 + 1 - height))
    corners = np.array(
        [
            (left, above), (left, below), (right, above), (right, below),
            (left, top), (left, bottom), (right, top), (right, bottom),
            (x2 + 1, top), (x1 - width, top), (x2 + 1, bottom), (x1 - width, bottom),
        ],
        dtype=np.float64,
    )  # fmt: skip
    extent = np.array([width, height])
    inside = ((corners >= 0) & (corners + extent <= np.array(size))).all(1)
    rectangles: Float64[np.ndarray, "n 4"] = np.concatenate([corners, corners + extent], 1)[inside]
    return rectangles


def _near(candidates: Float64[np.ndarray, "n 4"], rectangles: Float64[np.ndarray, "m 4"]) -> Int64[np.ndarray, " k"]:
    """Rectangles that overlap the one around all candidates."""
    left, top = candidates[:, 0].min(), candidates[:, 1].min()
    right, bottom = candidates[:, 2].max(), candidates[:, 3].max()
    x1, y1, x2, y2 = rectangles.T
    return np.flatnonzero((x1 < right) & (x2 > left) & (y1 < bottom) & (y2 > top))


def _intersections(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Pixels that two rectangles have in common, for all pairs."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common: Float64[np.ndarray, "n m"] = sides.clip(0).prod(2)
    return common
