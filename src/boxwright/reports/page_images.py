"""Images of a page: drawn, and encoded so that a page with all of them stays small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from boxwright.data.records import Record
from boxwright.drawing import draw_comparison, draw_detections, draw_ground_truth, drawing_uri
from boxwright.drawing.comparison import ComparisonForm
from boxwright.reports.section import PageImage
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

_PAIR_SIDE = 720
"""Longest side of an image beside another one, in pixels; smaller ones are upsampled to it, up to four times."""

_SIDE = 640
"""The same of an image of which a page may have many."""

_BYTES = 4_500_000
"""Of all images of a page, as text."""

_QUALITIES = (85, 75, 60)
_SMALLER = 0.8


class ReportImage(NamedTuple):
    """One image to show.

    Args:
        image: RGB, (h, w, 3), uint8.
        record: its objects.
        detections: in its pixels.
        form: ground truth and detections side by side, or in one image with hits, misses and inventions in 3 styles;
            None for the image alone.
        note: on it, in a few words; counts of objects and detections where it is empty.
    """

    image: np.ndarray
    record: Record
    detections: Detections
    form: ComparisonForm | None = "side_by_side"
    note: str = ""


def show_images(
    images: Sequence[ReportImage], categories: Sequence[Category], threshold: float, *, num_images: int | None = None
) -> list[PageImage]:
    """Draw images, with detections of some score at least.

    Args:
        images: to draw.
        categories: label ``i`` is ``categories[i]``.
        threshold: the lowest score that is drawn.
        num_images: of the whole page, which have to fit together; so many as these where None.
    """
    most_bytes = _BYTES // max(1, len(images) if num_images is None else num_images)
    return [_show(one, categories, threshold, most_bytes) for one in images]


def _show(one: ReportImage, categories: Sequence[Category], threshold: float, most_bytes: int) -> PageImage:
    num_objects, num_detections = int((~one.record.crowd).sum()), int((one.detections.scores >= threshold).sum())
    note = one.note or f"{num_objects} objects, {num_detections} detections"
    drawings = _draw(one, categories, threshold)
    encoded = [(meaning, encode(drawing, most_bytes // len(drawings))) for meaning, drawing in drawings]
    return PageImage(one.record.path.name, note, encoded)


def _draw(one: ReportImage, categories: Sequence[Category], threshold: float) -> list[tuple[str, Image.Image]]:
    image, record, detections = one.image, one.record, one.detections
    scale = (_PAIR_SIDE if one.form == "side_by_side" else _SIDE) / max(image.shape[:2])
    # Upsampled by whole numbers only, which keeps pixels sharp.
    scale = float(min(int(scale), 4)) if scale > 1 else scale
    if one.form is None:
        return [("the image", _resize(Image.fromarray(image), scale))]
    if one.form == "overlay":
        drawn = draw_comparison(image, record, detections, categories, threshold=threshold, form="overlay", scale=scale)
        return [("objects that are detected, missed and invented", drawn)]
    left = draw_ground_truth(image, record, categories, scale=scale, with_masks=detections.masks is not None)
    right = draw_detections(image, detections, categories, threshold=threshold, scale=scale)
    return [("the objects of the data set", left), ("the detections", right)]


def encode(drawing: Image.Image, most_bytes: int) -> str:
    """Encode a drawing as a ``data:`` address of so many letters at most, in lower quality or smaller where needed."""
    for quality in _QUALITIES:
        uri = drawing_uri(drawing, quality=quality)
        if len(uri) <= most_bytes:
            return uri
    while len(uri) > most_bytes and min(drawing.size) > 64:
        drawing = _resize(drawing, _SMALLER)
        uri = drawing_uri(drawing, quality=_QUALITIES[-1])
    return uri


def _resize(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)
