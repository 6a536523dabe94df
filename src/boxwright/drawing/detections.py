"""Detections in solid lines, ground truth in dashed ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from boxwright.data.masks import decode_image_mask
from boxwright.data.records import Record
from boxwright.drawing.colors import class_color
from boxwright.drawing.objects import DrawnObject, box_pixels
from boxwright.drawing.rendering import render
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright.ops.masks import decode_mask
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

DASHED, DOTTED = 4, 1
"""Lengths of dashes in line widths."""

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
            mask=None if one.mask is None else partial(decode_mask, one.mask),
            sides_std=None if one.sides_std is None else tuple(std * scale for std in one.sides_std),
        )
        for one in detections
    ]


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
            mask=partial(decode_image_mask, record, i) if segmentation else None,
        )
        for i, (box, label, crowd, segmentation) in enumerate(
            zip(record.boxes().tolist(), record.labels.tolist(), record.crowd.tolist(), segmentations, strict=True)
        )
    ]


def class_numbers(categories: Sequence[Category]) -> list[int]:
    """Return numbers of classes for short labels: their ids in the data set, or their labels where ids are long."""
    ids = [category.id for category in categories]
    return ids if all(0 <= one < 10**_MOST_DIGITS for one in ids) else list(range(len(ids)))
