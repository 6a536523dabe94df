"""A legend below an image: numbers, names and counts of its classes, and samples of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from boxwright.drawing.colors import BLACK, WHITE, Color, letter_color
from boxwright.drawing.labels import letter_size
from boxwright.drawing.lettering import Lettering, Typesetter
from boxwright.drawing.objects import DrawnObject
from boxwright.drawing.shapes import draw_box
from boxwright.drawing.style import DrawingStyle

_LEAST_WIDTH = 14
"""Width of a legend in sizes of its letters, at least, where the image is narrower."""

_LEAST_ROWS = 4


class LegendEntry(NamedTuple):
    """One entry of a legend.

    Args:
        name: text behind the sample, shortened where it is wider than the legend.
        num_objects: behind the name, or None.
        color: of the sample.
        number: in the sample, which is then filled as a label; None for a sample of lines.
        dash: of the sample's lines, see ``DrawnObject``.
    """

    name: str
    num_objects: int | None
    color: Color
    number: int | None = None
    dash: int | None = None


def class_entries(objects: Sequence[DrawnObject]) -> list[LegendEntry]:
    """List the classes of objects, by their numbers."""
    counts: dict[tuple[int, str, Color], int] = {}
    for one in objects:
        key = one.number, one.name, one.color
        counts[key] = counts.get(key, 0) + 1
    return [LegendEntry(name, counts[number, name, color], color, number) for number, name, color in sorted(counts)]


def append_legend(drawing: Image.Image, entries: Sequence[LegendEntry], style: DrawingStyle) -> Image.Image:
    """Put a legend below a drawing, which stays as it is; one that is very narrow gets a margin at its right.

    Entries that would make the legend higher than the drawing are counted in the last one.
    """
    size = style.font_size or letter_size(drawing.size)
    width = max(drawing.width, _LEAST_WIDTH * size)
    parts = [_Part(one, size, width, style) for one in entries]
    rows = _arrange(parts, width)
    most = max(_LEAST_ROWS, drawing.height // parts[0].height)
    if len(rows) > most:
        left_out = sum(map(len, rows[most - 1 :]))
        rest = LegendEntry(f"and {left_out} more classes", None, WHITE)
        rows = [*rows[: most - 1], [_Part(rest, size, width, style)]]
    height = sum(max(one.height for one in row) for row in rows)
    whole = Image.new("RGB", (width, drawing.height + height), WHITE)
    whole.paste(drawing, (0, 0))
    draw, top = ImageDraw.Draw(whole), drawing.height
    for row in rows:
        left = 0
        for one in row:
            one.draw(draw, left, top)
            left += one.width
        top += max(one.height for one in row)
    return whole


class _Part:
    """An entry, measured: its sample and its text."""

    def __init__(self, entry: LegendEntry, size: int, width: int, style: DrawingStyle) -> None:
        self._entry, self._size = entry, size
        typesetter = Typesetter(style.font)
        self._number = None if entry.number is None else typesetter.letter(str(entry.number), "", size)
        self._sample = 2 * size if self._number is None else max(self._number.label_size[0], size)
        detail = f" ({entry.num_objects})" if entry.num_objects is not None else ""
        most = width - self._sample - size
        self._text = _first_line(typesetter, (entry.name, _code_points(entry.name), ""), detail, size, most)
        self.width = self._sample + self._text.label_size[0] + size
        self.height = self._text.label_size[1] + max(1, size // 5)

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        """Draw it with its upper left corner at a position."""
        size, color = self._size, self._entry.color
        left += size // 4
        right, bottom = left + self._sample, top + self.height - 1
        if self._number is not None:
            draw.rectangle((left, top + 1, right - 1, bottom), fill=color)
            inset = (self._sample - self._number.label_size[0]) // 2
            self._number.draw(draw, left + inset, top + 1, letter_color(color))
        else:
            line = max(1, size // 6)
            draw_box(draw, (left, top + 2, right - 1, bottom - 1), color, line, self._entry.dash)
        self._text.draw(draw, right, top + 1, BLACK)


def _first_line(typesetter: Typesetter, names: Sequence[str], detail: str, size: int, most: int) -> Lettering:
    """The first of some names that fonts can draw; the detail alone fits always."""
    lines = (typesetter.letter(name, detail, size, most) for name in names)
    first = next((line for line in lines if line is not None), None)
    return first or Lettering((), size, 0, size, 0)


def _code_points(name: str) -> str:
    return " ".join(f"U+{ord(one):04X}" for one in name if not one.isspace())


def _arrange(parts: Sequence[_Part], width: int) -> list[list[_Part]]:
    """Fill rows from left to right."""
    rows: list[list[_Part]] = [[]]
    used = 0
    for part in parts:
        if rows[-1] and used + part.width > width:
            rows.append([])
            used = 0
        rows[-1].append(part)
        used += part.width
    return rows
