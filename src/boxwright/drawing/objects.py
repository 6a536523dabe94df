"""Objects to draw, in pixels of the drawing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool

from boxwright.drawing.colors import Color

Rectangle = tuple[int, int, int, int]


class DrawnObject(NamedTuple):
    """One object to draw.

    The ``mask`` is in pixels of the original image. It is made when it is drawn: all of a large image's masks at once
    need gigabytes.

    Args:
        box: the pixels under its edges: the first and last column and row, all inside the drawing.
        name: of its class.
        number: of its class, for short labels.
        detail: after the name, as its score.
        color: of lines and label.
        dash: length of dashes and of gaps in line widths; None for a solid line.
        mask: makes it, or None.
        sides_std: standard deviations of x1, y1, x2, y2, in pixels of the drawing, or None.
    """

    box: Rectangle
    name: str
    number: int
    detail: str
    color: Color
    dash: int | None = None
    mask: Callable[[], Bool[np.ndarray, "h w"]] | None = None
    sides_std: tuple[float, ...] | None = None

    @property
    def side(self) -> float:
        """Root of the box's area, in pixels."""
        x1, y1, x2, y2 = self.box
        return math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1))


def box_pixels(box: Sequence[float], scale: float, size: tuple[int, ...]) -> Rectangle:
    """Compute the pixels under a box's edges, all inside the drawing.

    Args:
        box: corners (x1, y1, x2, y2) in pixels of the image.
        scale: of the drawing.
        size: height and width of the image.
    """
    height, width = scale_side(size[0], scale), scale_side(size[1], scale)
    x1, y1 = min(round(box[0] * scale), width - 1), min(round(box[1] * scale), height - 1)
    x2, y2 = min(round(box[2] * scale) - 1, width - 1), min(round(box[3] * scale) - 1, height - 1)
    return max(x1, 0), max(y1, 0), max(x2, x1, 0), max(y2, y1, 0)


def scale_side(side: int, scale: float) -> int:
    """Scale a side of an image, to a pixel at least."""
    return max(1, round(side * scale))
