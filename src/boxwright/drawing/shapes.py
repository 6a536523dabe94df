"""Boxes and masks, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

from boxwright.drawing.colors import Color
from boxwright.drawing.objects import Rectangle

_FILL = 0.4
"""Opacity of the class's color on the pixels of a mask; its edge is opaque."""


def draw_mask(drawing: Image.Image, mask: Bool[np.ndarray, "h w"], color: Color, line: int) -> None:
    """Tint the pixels of a mask, which is resized to the drawing, and color its edge, which lies inside it."""
    drawn = Image.fromarray(mask.astype(np.uint8) * 255).resize(drawing.size, Image.Resampling.NEAREST)
    rectangle = drawn.getbbox()
    if rectangle is None:
        return
    inside = np.asarray(drawn.crop(rectangle)) > 0
    weight = np.where(_erode(inside, line), round(255 * _FILL), 255) * inside
    drawing.paste(color, rectangle, Image.fromarray(weight.astype(np.uint8)))


def _erode(mask: Bool[np.ndarray, "h w"], times: int) -> Bool[np.ndarray, "h w"]:
    """Remove every pixel that has a neighbor outside, so many times."""
    for _ in range(times):
        wide = np.pad(mask, 1)
        mask = mask & wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    return mask


def draw_side_ranges(
    draw: ImageDraw.ImageDraw, box: Rectangle, sides_std: Sequence[float], color: Color, line: int
) -> None:
    """Draw a bar across the middle of each side, a standard deviation to both of its sides, with caps.

    Args:
        draw: on the drawing.
        box: first and last pixels.
        sides_std: of x1, y1, x2, y2, in pixels of the drawing.
        color: of the bars.
        line: their width in pixels.
    """
    x1, y1, x2, y2 = box
    cap = max(2, min(x2 - x1, y2 - y1) // 16)
    for side, (position, std) in enumerate(zip(box, sides_std, strict=True)):
        is_upright = side % 2 == 0
        middle = (y1 + y2) // 2 if is_upright else (x1 + x2) // 2
        ends = position - std, position + std
        bars = [(ends[0], middle, ends[1], middle), *((end, middle - cap, end, middle + cap) for end in ends)]
        for u1, v1, u2, v2 in bars:
            draw.line((u1, v1, u2, v2) if is_upright else (v1, u1, v2, u2), fill=color, width=line)


def draw_box(draw: ImageDraw.ImageDraw, box: Rectangle, color: tuple[int, ...], line: int, dash: int | None) -> None:
    """Draw lines inside a box, so that two boxes side by side do not cover each other's edges.

    Args:
        draw: on the drawing.
        box: first and last pixels.
        color: of the lines; with an opacity where the drawing takes one.
        line: their width in pixels.
        dash: length of dashes and of gaps in line widths; None for solid lines.
    """
    x1, y1, x2, y2 = box
    if dash is None:
        draw.rectangle(box, outline=color, width=min(line, x2 - x1 + 1, y2 - y1 + 1))
        return
    on, period = dash * line, 2 * dash * line
    for start in range(x1, x2 + 1, period):
        end = min(start + on - 1, x2)
        draw.rectangle((start, y1, end, min(y1 + line - 1, y2)), fill=color)
        draw.rectangle((start, max(y2 - line + 1, y1), end, y2), fill=color)
    for start in range(y1, y2 + 1, period):
        end = min(start + on - 1, y2)
        draw.rectangle((x1, start, min(x1 + line - 1, x2), end), fill=color)
        draw.rectangle((max(x2 - line + 1, x1), start, x2, end), fill=color)
