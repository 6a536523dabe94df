"""Options of drawings: labels, lines, letters, legend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from boxwright.drawing.glyphs import check_font

LabelForm = Literal["full", "short", "dots", "none"]

MOST_PIXELS = 1000
"""Widest line and largest letters."""


@dataclass(frozen=True, kw_only=True)
class DrawingStyle:
    """Looks of objects on an image.

    Args:
        labels: ``full`` names with scores, ``short`` for numbers of classes, ``dots``, or ``none``. A label that would
            hide other objects, or too much of its own, becomes shorter, down to a dot.
        line_width: of boxes, in pixels of the drawing; by the image's size, and less for small objects, where None.
        font_size: of letters, in pixels of the drawing; by the image's size, and less for small objects, where None.
        legend: below the image: number, name and count of each class. Where None, it is there if a label is no name.
        font: file of a font (TrueType or OpenType) to use before others.

    Raises:
        ValueError: an option is out of range, or the file is no font.
    """

    labels: LabelForm = "full"
    line_width: int | None = None
    font_size: int | None = None
    legend: bool | None = None
    font: str | Path | None = None

    def __post_init__(self) -> None:
        if self.labels not in get_args(LabelForm):
            raise ValueError(f"labels are {', '.join(get_args(LabelForm))}, not {self.labels!r}")
        for name, value, least in (("line width", self.line_width, 1), ("font size", self.font_size, 5)):
            if value is not None and not least <= value <= MOST_PIXELS:
                raise ValueError(f"the {name} is from {least} to {MOST_PIXELS} pixels, not {value}")
        if self.font is not None:
            check_font(self.font)


AUTOMATIC = DrawingStyle()


@dataclass(frozen=True)
class Drawings:
    """Drawings that a function writes.

    Args:
        folder: of their files.
        style: of labels, lines and legend.
    """

    folder: str | Path
    style: DrawingStyle = AUTOMATIC
