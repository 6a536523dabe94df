"""Marks of an explanation on an image: boxes, points and maps, in steps and groups that can be shown one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from boxwright.drawing.colors import Color
from boxwright.drawing.objects import box_pixels
from boxwright.drawing.shapes import draw_box

MarkedBox = tuple[float, float, float, float]

_SIDE = 1000
"""Longest side of a drawing of marks, in pixels; smaller images are made as large."""

_DASH = 3
"""Length of dashes, in widths of the line."""

_GAMMA = 0.75
"""Exponent of values, so that small ones can be seen beside large ones."""

MAP_COLOR: Color = (238, 51, 119)
"""Color of the largest value of a map."""


@dataclass(frozen=True)
class BoxMark:
    """A box.

    Args:
        box: corners, in pixels of the image.
        color: of its line.
        width: of its line, in pixels of a drawing with sides of about 1,000.
        is_dashed: dashes rather than a line.
        opacity: in [0, 1].
        fill: opacity of its inside, in [0, 1].
        text: that a page shows of it.
    """

    box: MarkedBox
    color: Color
    width: int = 3
    is_dashed: bool = False
    opacity: float = 1.0
    fill: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class PointMark:
    """A point.

    Args:
        point: (x, y) in pixels of the image.
        color: of the disk.
        radius: in pixels of a drawing with sides of about 1,000.
        opacity: in [0, 1].
        text: that a page shows of it.
    """

    point: tuple[float, float]
    color: Color
    radius: float
    opacity: float = 0.75
    text: str = ""


@dataclass(frozen=True, eq=False)
class MapMark:
    """A map of cells, the more opaque, the larger their value.

    Args:
        values: at least 0; negative ones are as 0.
        box: corners of the whole map, in pixels of the image.
        largest: value that is opaque; the largest of the map where None.
    """

    values: Float[np.ndarray, "h w"]
    box: MarkedBox
    largest: float | None = None

    def opacities(self) -> UInt8[np.ndarray, "h w"]:
        """Compute the opacity of each cell, of 255."""
        largest = max(float(self.values.max()) if self.largest is None else self.largest, 1e-12)
        return np.asarray((self.values / largest).clip(0, 1) ** _GAMMA * 215, dtype=np.uint8)


Mark = BoxMark | PointMark | MapMark


@dataclass(frozen=True, eq=False)
class MarkGroup:
    """Marks that are shown together.

    Args:
        marks: later ones lie on top.
        step: in which they are shown; None for all.
        name: under which they can be hidden; none where empty.
    """

    marks: Sequence[Mark]
    step: int | None = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class MarkedSteps:
    """Steps of an explanation.

    Args:
        names: of the steps, in order, as "decoder layer 1 of 3".
        texts: what happens in each step, a sentence or two.
        groups: of marks.
        hidden: names of groups that are not shown at first.
        colors: of groups that have one of their own, as levels.
    """

    names: Sequence[str]
    texts: Sequence[str]
    groups: Sequence[MarkGroup]
    hidden: Sequence[str] = ()
    colors: tuple[tuple[str, Color], ...] = ()

    def group_names(self) -> list[str]:
        """List the names of groups, in their first order."""
        return [name for name in dict.fromkeys(group.name for group in self.groups) if name]

    def marks_of(self, step: int) -> list[Mark]:
        """List the marks that are shown first in a step."""
        shown = [group for group in self.groups if group.step in (None, step) and group.name not in self.hidden]
        return [mark for group in shown for mark in group.marks]


def draw_marks(image: UInt8[np.ndarray, "h w 3"], marks: Sequence[Mark]) -> Image.Image:
    """Draw marks on an image; a small image is made larger, so that they can be told apart.

    Args:
        image: RGB.
        marks: in pixels of the image.
    """
    scale = max(1.0, _SIDE / max(image.shape[:2]))
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    drawing = Image.fromarray(np.ascontiguousarray(image), "RGB").resize(size, Image.Resampling.BILINEAR)
    # In this mode colors with an opacity are blended with what is below.
    draw = ImageDraw.Draw(drawing, "RGBA")
    for mark in marks:
        if isinstance(mark, MapMark):
            _spread_map(drawing, mark, scale)
        elif isinstance(mark, PointMark):
            x, y = (at * scale for at in mark.point)
            disk = (x - mark.radius, y - mark.radius, x + mark.radius, y + mark.radius)
            draw.ellipse(disk, fill=(*mark.color, round(255 * mark.opacity)))
        else:
            pixels, dash = box_pixels(mark.box, scale, image.shape[:2]), _DASH if mark.is_dashed else None
            if mark.fill:
                draw.rectangle(pixels, fill=(*mark.color, round(255 * mark.fill)))
            draw_box(draw, pixels, (*mark.color, round(255 * mark.opacity)), mark.width, dash)
    return drawing


def _spread_map(drawing: Image.Image, mark: MapMark, scale: float) -> None:
    """Lay the color of maps over a drawing, cell by cell."""
    x1, y1, x2, y2 = (round(at * scale) for at in mark.box)
    cells = Image.fromarray(mark.opacities()).resize((max(x2 - x1, 1), max(y2 - y1, 1)), Image.Resampling.NEAREST)
    mask = Image.new("L", drawing.size)
    mask.paste(cells, (x1, y1))
    drawing.paste(MAP_COLOR, (0, 0), mask)
