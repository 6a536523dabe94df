"""Objects on an image: masks below boxes, boxes below labels, and the legend below the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from boxwright.drawing.colors import letter_color
from boxwright.drawing.labels import Label, place_labels
from boxwright.drawing.legend import LegendEntry, append_legend, class_entries
from boxwright.drawing.objects import DrawnObject, scale_side
from boxwright.drawing.shapes import draw_box, draw_mask, draw_side_ranges
from boxwright.drawing.style import DrawingStyle

_LINES_OF_OBJECT = 16
"""Width of the lines of a small object: the root of its area divided by this."""


def render(
    image: UInt8[np.ndarray, "h w 3"], objects: Sequence[DrawnObject], scale: float, style: DrawingStyle
) -> Image.Image:
    """Draw objects on an image, with a legend below it where there is something to explain.

    Args:
        image: RGB.
        objects: in pixels of the drawing; the most important ones first, which lie on top.
        scale: resize the image by so much first.
        style: of lines and labels.
    """
    drawing, labels = draw_objects_with_labels(image, objects, scale, style)
    return add_legend(drawing, objects, labels, style)


def draw_objects_with_labels(
    image: UInt8[np.ndarray, "h w 3"], objects: Sequence[DrawnObject], scale: float, style: DrawingStyle
) -> tuple[Image.Image, list[Label]]:
    """Draw objects on an image as ``render`` does, without a legend; return the labels too."""
    drawing = draw_shapes(image, objects, scale, style.line_width)
    labels = place_labels(objects, drawing.size, style)
    draw_labels(drawing, objects, labels)
    return drawing, labels


def draw_shapes(
    image: UInt8[np.ndarray, "h w 3"], objects: Sequence[DrawnObject], scale: float, line_width: int | None
) -> Image.Image:
    """Draw masks and boxes on a resized copy of an image."""
    drawing = Image.fromarray(np.ascontiguousarray(image), "RGB")
    if scale != 1.0:
        size = (scale_side(drawing.width, scale), scale_side(drawing.height, scale))
        drawing = drawing.resize(size, Image.Resampling.LANCZOS)
    widest = max(1, round(min(drawing.size) / 160))
    lines = [line_width or max(1, min(widest, round(one.side / _LINES_OF_OBJECT))) for one in objects]
    # Masks below all boxes; of all of them, weak ones first, so that strong ones lie on top.
    for one, line in reversed(list(zip(objects, lines, strict=True))):
        if one.mask is not None:
            draw_mask(drawing, one.mask(), one.color, max(1, line // 2))
    draw = ImageDraw.Draw(drawing)
    for one, line in reversed(list(zip(objects, lines, strict=True))):
        draw_box(draw, one.box, one.color, line, one.dash)
        if one.sides_std is not None:
            draw_side_ranges(draw, one.box, one.sides_std, one.color, max(1, line // 2))
    return drawing


def draw_labels(drawing: Image.Image, objects: Sequence[DrawnObject], labels: Sequence[Label]) -> None:
    """Draw labels over everything else, so that no line crosses a letter."""
    draw = ImageDraw.Draw(drawing)
    for label in labels:
        color = objects[label.object_index].color
        x1, y1, x2, y2 = label.rectangle
        if label.lettering is None:
            draw.ellipse((x1, y1, x2 - 1, y2 - 1), fill=color)
        else:
            draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
            label.lettering.draw(draw, x1, y1, letter_color(color))


def add_legend(
    drawing: Image.Image,
    objects: Sequence[DrawnObject],
    labels: Sequence[Label],
    style: DrawingStyle,
    entries: Sequence[LegendEntry] = (),
) -> Image.Image:
    """Put a legend below a drawing: some entries, and all classes where a label is no name, or the style asks for them.

    Args:
        drawing: with its labels.
        objects: that are drawn.
        labels: of these objects, as far as there was room.
        style: of the legend.
        entries: before those of classes.
    """
    num_named = sum(label.kind == "name" for label in labels)
    with_classes = style.legend or (style.labels != "none" and num_named < len(objects))
    shown = [*entries, *(class_entries(objects) if with_classes else ())]
    return append_legend(drawing, shown, style) if shown and style.legend is not False else drawing
