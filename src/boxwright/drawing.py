"""Boxes and masks drawn on images: detections in solid lines, ground truth in dashed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from boxwright.data.masks import decode_image_mask
from boxwright.data.records import Record
from boxwright.ops.masks import decode_mask
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Distinct to readers with any common color vision, and apart from each other in lightness.
# Source: Paul Tol, Color Schemes, SRON technical note 2021: "vibrant", with a yellow and a purple added.
_PALETTE: tuple[Color, ...] = (
    (0, 119, 187),
    (238, 119, 51),
    (0, 153, 136),
    (238, 51, 119),
    (51, 187, 238),
    (221, 170, 51),
    (170, 68, 153),
    (204, 51, 17),
)
_WHITE, _BLACK = (255, 255, 255), (17, 17, 17)
_TINTS = ((_WHITE, 0.0), (_WHITE, 0.4), (_BLACK, 0.4))

_FILL = 0.4
"""Opacity of the class's color on the pixels of a mask; its edge is opaque."""


class _Item(NamedTuple):
    """One object to draw, in pixels of the drawing; ``dash`` is in line widths, None for a solid line.

    The ``mask`` is in pixels of the original image. It is made when it is drawn: all of a large image's
    masks at once need gigabytes.
    """

    box: Rectangle
    text: str
    color: Color
    dash: int | None
    mask: Callable[[], Bool[Tensor, "h w"]] | None = None


def class_color(label: int) -> Color:
    """Return the color of a class, the same in every image and chart: 24 of them, then from the start again."""
    base = _PALETTE[label % len(_PALETTE)]
    toward, weight = _TINTS[label // len(_PALETTE) % len(_TINTS)]
    red, green, blue = (round(a + weight * (b - a)) for a, b in zip(base, toward, strict=True))
    return red, green, blue


def draw_detections(
    image: UInt8[np.ndarray, "h w 3"],
    detections: Detections,
    categories: Sequence[Category],
    *,
    threshold: float,
    scale: float = 1.0,
) -> Image.Image:
    """Draw detections, each box with its class and score, on its mask where there is one.

    Args:
        image: RGB.
        detections: in pixels of ``image``.
        categories: label ``i`` is ``categories[i]``.
        threshold: the lowest score that is drawn.
        scale: resize the image by so much first, which leaves room for letters in a small one.
    """
    kept = detections[detections.scores >= threshold]
    items = [
        _Item(
            _pixels(one.box, scale, image.shape[:2]),
            f"{categories[one.label].name} {one.score:.2f}",
            class_color(one.label),
            dash=None,
            mask=None if one.mask is None else partial(decode_mask, one.mask),
        )
        for one in kept
    ]
    return _draw(image, items, scale)


def save_drawings(results: Iterable[tuple[UInt8[np.ndarray, "h w 3"], Detections]], folder: Path) -> list[str]:
    """Draw detections on their images and write them as PNG files into a folder; return the names of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for index, (image, detections) in enumerate(results):
        names.append(f"image_{index}.png")
        draw_detections(image, detections, detections.categories, threshold=0.0).save(folder / names[-1])
    return names


def draw_ground_truth(
    image: UInt8[np.ndarray, "h w 3"],
    record: Record,
    categories: Sequence[Category],
    *,
    scale: float = 1.0,
    with_masks: bool = False,
    predictions: Sequence[tuple[str, Sequence[float], float]] = (),
) -> Image.Image:
    """Draw the objects of an image, each box dashed, and dotted where it marks a crowd; predictions in solid lines.

    Args:
        image: RGB, the image of ``record`` after its EXIF rotation.
        record: its objects.
        categories: label ``i`` is ``categories[i]``.
        scale: resize the image by so much first.
        with_masks: also the masks of those that have one.
        predictions: name of the class, corners and score of objects that a model sees.
    """
    labels = {category.name: label for label, category in enumerate(categories)}
    segmentations = record.segmentations if with_masks and record.segmentations else [None] * len(record.labels)
    items = [
        _Item(
            _pixels(box, scale, image.shape[:2]),
            f"{categories[label].name} (crowd)" if crowd else categories[label].name,
            class_color(label),
            dash=1 if crowd else 4,
            mask=partial(decode_image_mask, record, i) if segmentation else None,
        )
        for i, (box, label, crowd, segmentation) in enumerate(
            zip(record.boxes().tolist(), record.labels.tolist(), record.crowd.tolist(), segmentations, strict=True)
        )
    ]
    items += [
        _Item(
            _pixels(box, scale, image.shape[:2]),
            f"{name} {score:.2f}",
            class_color(labels.get(name, len(labels))),
            dash=None,
        )
        for name, box, score in predictions
    ]
    return _draw(image, items, scale)


def _pixels(box: Sequence[float], scale: float, size: tuple[int, ...]) -> Rectangle:
    """The pixels under a box's edges, all inside the drawing."""
    height, width = _scaled(size[0], scale), _scaled(size[1], scale)
    x1, y1 = min(round(box[0] * scale), width - 1), min(round(box[1] * scale), height - 1)
    x2, y2 = min(round(box[2] * scale) - 1, width - 1), min(round(box[3] * scale) - 1, height - 1)
    return max(x1, 0), max(y1, 0), max(x2, x1, 0), max(y2, y1, 0)


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))


def _draw(image: np.ndarray, items: list[_Item], scale: float) -> Image.Image:
    drawing = Image.fromarray(np.ascontiguousarray(image), "RGB")
    if scale != 1.0:
        size = (_scaled(drawing.width, scale), _scaled(drawing.height, scale))
        drawing = drawing.resize(size, Image.Resampling.LANCZOS)
    side = min(drawing.size)
    line = max(1, round(side / 160))
    # Masks below all boxes; of all of them, weak ones first, so that strong ones lie on top.
    for item in reversed(items):
        if item.mask is not None:
            _draw_mask(drawing, item.mask().numpy(), item.color, max(1, line // 2))
    draw = ImageDraw.Draw(drawing)
    font = ImageFont.load_default(max(10, round(side / 36)))
    # Labels last, so that no line crosses a letter.
    for item in reversed(items):
        _draw_box(draw, item, line)
    taken: list[Rectangle] = []
    for item in items:
        taken.append(_draw_label(draw, item, font, drawing.size, taken))
    return drawing


def _draw_mask(drawing: Image.Image, mask: Bool[np.ndarray, "h w"], color: Color, line: int) -> None:
    """Tint the pixels of a mask and color its edge, which lies inside it."""
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


def _draw_box(draw: ImageDraw.ImageDraw, item: _Item, line: int) -> None:
    """Lines lie inside the box, so that two boxes side by side do not cover each other's edges."""
    x1, y1, x2, y2 = item.box
    if item.dash is None:
        draw.rectangle(item.box, outline=item.color, width=min(line, x2 - x1 + 1, y2 - y1 + 1))
        return
    on, period = item.dash * line, 2 * item.dash * line
    for start in range(x1, x2 + 1, period):
        end = min(start + on - 1, x2)
        draw.rectangle((start, y1, end, min(y1 + line - 1, y2)), fill=item.color)
        draw.rectangle((start, max(y2 - line + 1, y1), end, y2), fill=item.color)
    for start in range(y1, y2 + 1, period):
        end = min(start + on - 1, y2)
        draw.rectangle((x1, start, min(x1 + line - 1, x2), end), fill=item.color)
        draw.rectangle((max(x2 - line + 1, x1), start, x2, end), fill=item.color)


def _draw_label(
    draw: ImageDraw.ImageDraw,
    item: _Item,
    font: _Font,
    size: tuple[int, int],
    taken: list[Rectangle],
) -> Rectangle:
    """Draw a label inside the image, where it covers no other if it can; returns its rectangle."""
    text = _shorten(draw, item.text, font, size[0])
    _, top, _, bottom = draw.textbbox((0, 0), "Ag", font=font)  # one height for all labels
    pad = max(1, round((bottom - top) / 5))
    width = min(round(draw.textlength(text, font=font)) + 2 * pad, size[0])
    height = min(round(bottom - top) + 2 * pad, size[1])
    rectangle = _place_label(item.box, width, height, size, taken)
    x1, y1, x2, y2 = rectangle
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=item.color)
    red, green, blue = item.color
    letters = _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE
    draw.text((x1 + pad, y1 + pad - top), text, font=font, fill=letters)
    return rectangle


def _place_label(
    box: Rectangle,
    width: int,
    height: int,
    size: tuple[int, int],
    taken: list[Rectangle],
) -> Rectangle:
    x1, y1, x2, y2 = box
    above, below = y1 - height, y2 + 1
    left, right = (min(max(x, 0), size[0] - width) for x in (x1, x2 + 1 - width))
    corners = [
        (left, above),
        (left, below),
        (right, above),
        (right, below),
        (left, y1),
        (left, below - height),
    ]
    rectangles = [(x, y, x + width, y + height) for x, y in corners if 0 <= y <= size[1] - height]
    free = (one for one in rectangles if not any(_overlap(one, other) for other in taken))
    # Where there is no room around the box, the label lies in it: a box as high as the image.
    top = min(max(y1, 0), size[1] - height)
    return next(free, rectangles[0] if rectangles else (left, top, left + width, top + height))


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _shorten(
    draw: ImageDraw.ImageDraw,
    text: str,
    font: _Font,
    width: int,
) -> str:
    """Leave out the middle of ``text`` where it would be wider than the image: the score at its end stays."""
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width - 8:
        return text
    for length in range(len(text) - 1, 1, -1):
        tail = min(5, length // 2)
        short = f"{text[: length - tail]}...{text[len(text) - tail :]}"
        if draw.textlength(short, font=font) <= width - 8:
            return short
    return ""
