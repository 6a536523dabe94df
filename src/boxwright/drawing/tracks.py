"""Tracked objects on a frame of a video: boxes with ids, the ways that they came, lines and zones with their counts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from boxwright.drawing.colors import WHITE, Color, class_color, letter_color
from boxwright.drawing.detections import detected_objects
from boxwright.drawing.labels import letter_size, place_labels
from boxwright.drawing.lettering import Typesetter
from boxwright.drawing.objects import DrawnObject
from boxwright.drawing.rendering import draw_labels, draw_shapes
from boxwright.drawing.style import DrawingStyle
from boxwright.tracking.counting import CrossingCounts, Point
from boxwright_runtime.detections import Detections

_SECONDS = 2.0
"""Length of a trail."""


class Trails:
    """Ways of objects in the last two seconds, by the middle of their boxes."""

    def __init__(self) -> None:
        self._points: dict[int, deque[tuple[float, Point]]] = {}

    def __len__(self) -> int:
        """Count the objects that have one."""
        return len(self._points)

    def update(self, time: float, ids: Sequence[int], boxes: Any) -> None:
        """Take the objects of a frame, and forget what is older than trails are."""
        corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4).tolist()
        for one, (x1, y1, x2, y2) in zip(ids, corners, strict=True):
            self._points.setdefault(one, deque()).append((time, ((x1 + x2) / 2, (y1 + y2) / 2)))
        for one, points in list(self._points.items()):
            while points and time - points[0][0] > _SECONDS:
                points.popleft()
            if not points:
                del self._points[one]

    def of(self, one: int) -> list[Point]:
        """Return the way of an object, from the oldest point to the last."""
        return [point for _, point in self._points.get(one, ())]


def draw_tracked(
    image: UInt8[np.ndarray, "h w 3"],
    detections: Detections,
    ids: Sequence[int] | None,
    *,
    trails: Trails,
    counts: CrossingCounts,
    style: DrawingStyle,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the objects of a frame; the drawing has the size of the frame.

    Args:
        image: RGB.
        detections: in pixels of the frame.
        ids: of the objects, each in a color of its own; None where they are not tracked, and have that of their class.
        trails: of the objects.
        counts: over lines and zones.
        style: of boxes and labels; there is no legend.
    """
    objects = detected_objects(detections, detections.categories, 1.0, image.shape[:2])
    if ids is not None:
        objects = [_named(one, number) for one, number in zip(objects, ids, strict=True)]
    drawing = draw_shapes(image, objects, 1.0, style.line_width)
    draw, line = ImageDraw.Draw(drawing), max(1, round(min(drawing.size) / 240))
    for one, number in zip(objects, ids or (), strict=False):
        if len(way := trails.of(number)) > 1:
            draw.line(way, fill=one.color, width=line, joint="curve")
    _draw_counts(drawing, counts, line, style)
    draw_labels(drawing, objects, place_labels(objects, drawing.size, style))
    return np.asarray(drawing)


def _named(one: DrawnObject, number: int) -> DrawnObject:
    return one._replace(name=f"{one.name} {number}", number=number, color=class_color(number - 1))


def _draw_counts(drawing: Image.Image, counts: CrossingCounts, line: int, style: DrawingStyle) -> None:
    """Draw lines and zones, each with its counts beside its first point."""
    draw = ImageDraw.Draw(drawing)
    for number, one in enumerate(counts.lines, 1):
        right, left = one.right.total(), one.left.total()
        draw.line(one.line.points, fill=WHITE, width=2 * line)
        _draw_text(drawing, one.line.begin, f"line {number}: right {right}, left {left}", style, WHITE)
    for number, zone in enumerate(counts.zones, 1):
        points = zone.zone.points
        for begin, end in pairwise([*points, points[0]]):
            draw.line((begin, end), fill=WHITE, width=2 * line)
        text = f"zone {number}: inside {zone.num_inside}, entered {zone.entered.total()}, exited {zone.exited.total()}"
        _draw_text(drawing, points[0], text, style, WHITE)


def _draw_text(drawing: Image.Image, at: Point, text: str, style: DrawingStyle, color: Color) -> None:
    """Write a text on a color, as near to a point as the drawing allows."""
    size = style.font_size or letter_size(drawing.size)
    lettering = Typesetter(style.font).letter(text, "", size)
    assert lettering is not None  # every font has these letters
    width, height = lettering.label_size
    x = round(min(max(at[0], 0), max(drawing.width - width, 0)))
    y = round(min(max(at[1], 0), max(drawing.height - height, 0)))
    draw = ImageDraw.Draw(drawing)
    draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
    lettering.draw(draw, x, y, letter_color(color))
