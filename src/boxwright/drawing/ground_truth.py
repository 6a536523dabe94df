"""Ground truth in dashed lines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from boxwright.data.masks import decode_image_mask
from boxwright.data.records import Record
from boxwright.drawing.colors import class_color
from boxwright.drawing.detections import class_numbers
from boxwright.drawing.objects import DrawnObject, box_pixels
from boxwright.drawing.rendering import render
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright_runtime.structures import Category

DASHED, DOTTED = 4, 1
"""Lengths of dashes in line widths."""


def draw_ground_truth(
    image: UInt8[np.ndarray, "h w 3"],
    record: Record,
    categories: Sequence[Category],
    *,
    scale: float = 1.0,
    with_masks: bool = False,
    predictions: Sequence[tuple[str, Sequence[float], float]] = (),
    style: DrawingStyle = AUTOMATIC,
) -> Image.Image:
    """Draw the objects of an image, each box dashed, and dotted where it marks a crowd; predictions in solid lines.

    Args:
        image: RGB, the image of ``record`` after its EXIF rotation.
        record: its objects.
        categories: label ``i`` is ``categories[i]``.
        scale: resize the image by so much first.
        with_masks: also the masks of those that have one.
        predictions: name of the class, corners and score of objects that a model sees.
        style: of labels, lines and legend.
    """
    labels = {category.name: label for label, category in enumerate(categories)}
    objects = annotated_objects(record, categories, scale, with_masks=with_masks)
    objects += [
        DrawnObject(
            box_pixels(box, scale, image.shape[:2]),
            name,
            class_numbers(categories)[labels[name]] if name in labels else len(labels),
            f" {score:.2f}",
            class_color(labels.get(name, len(labels))),
        )
        for name, box, score in predictions
    ]
    return render(image, objects, scale, style)


def annotated_objects(
    record: Record, categories: Sequence[Category], scale: float, *, with_masks: bool
) -> list[DrawnObject]:
    """Prepare the objects of an image for a drawing of it."""
    numbers = class_numbers(categories)
    segmentations = record.segmentations if with_masks and record.segmentations else [None] * len(record.labels)
    return [
        DrawnObject(
            box_pixels(box, scale, (record.height, record.width)),
            categories[label].name,
            numbers[label],
            " (crowd)" if crowd else "",
            class_color(label),
            dash=DOTTED if crowd else DASHED,
            mask=partial(_decode, record, i) if segmentation else None,
        )
        for i, (box, label, crowd, segmentation) in enumerate(
            zip(record.boxes().tolist(), record.labels.tolist(), record.crowd.tolist(), segmentations, strict=True)
        )
    ]


def _decode(record: Record, index: int) -> Bool[np.ndarray, "h w"]:
    mask: Bool[np.ndarray, "h w"] = decode_image_mask(record, index).numpy()
    return mask
