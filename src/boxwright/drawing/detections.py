"""Detections in solid lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxwright.drawing.colors import class_color
from boxwright.drawing.objects import DrawnObject, box_pixels
from boxwright.drawing.rendering import render
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright_runtime.detections import Detections
from boxwright_runtime.masks import decode_rle
from boxwright_runtime.structures import Category

_MOST_DIGITS = 3


def draw_detections(
    image: UInt8[np.ndarray, "h w 3"],
    detections: Detections,
    categories: Sequence[Category],
    *,
    threshold: float,
    scale: float = 1.0,
    style: DrawingStyle = AUTOMATIC,
) -> Image.Image:
    """Draw detections, each box with its class and score, on its mask where there is one.

    Args:
        image: RGB.
        detections: in pixels of ``image``.
        categories: label ``i`` is ``categories[i]``; labels are drawn for names where it is empty.
        threshold: the lowest score that is drawn.
        scale: resize the image by so much first, which leaves room for letters in a small one.
        style: of labels, lines and legend.

    Returns:
        the image in its size, and below it a legend where labels are no names.
    """
    kept = detections[detections.scores >= threshold]
    return render(image, detected_objects(kept, categories, scale, image.shape[:2]), scale, style)


def detected_objects(
    detections: Detections, categories: Sequence[Category], scale: float, size: tuple[int, ...]
) -> list[DrawnObject]:
    """Prepare detections for a drawing of an image of this height and width."""
    numbers = class_numbers(categories)
    return [
        DrawnObject(
            box_pixels(one.box, scale, size),
            categories[one.label].name if categories else one.name,
            numbers[one.label] if categories else one.label,
            f" {one.score:.2f}",
            class_color(one.label),
            mask=None if one.mask is None else partial(decode_rle, one.mask),
            sides_std=None if one.sides_std is None else tuple(std * scale for std in one.sides_std),
        )
        for one in detections
    ]


def class_numbers(categories: Sequence[Category]) -> list[int]:
    """Return numbers of classes for short labels: their ids in the data set, or their labels where ids are long."""
    ids = [category.id for category in categories]
    return ids if all(0 <= one < 10**_MOST_DIGITS for one in ids) else list(range(len(ids)))
