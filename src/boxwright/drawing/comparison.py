"""Detections beside the ground truth of their image, or both in one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from boxwright.data.records import Record
from boxwright.drawing.colors import BLACK, WHITE, Color
from boxwright.drawing.detections import detected_objects
from boxwright.drawing.ground_truth import DASHED, DOTTED, annotated_objects
from boxwright.drawing.labels import letter_size
from boxwright.drawing.legend import LegendEntry
from boxwright.drawing.lettering import Lettering, Typesetter
from boxwright.drawing.objects import DrawnObject
from boxwright.drawing.outcomes import match_to_ground_truth
from boxwright.drawing.rendering import add_legend, draw_objects_with_labels
from boxwright.drawing.style import AUTOMATIC, DrawingStyle
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

ComparisonForm = Literal["side_by_side", "overlay"]


class _Outcome(NamedTuple):
    name: str
    color: Color
    dash: int | None


# Source of the colors: Okabe and Ito, Color Universal Design, 2008: blue, orange and reddish purple, distinct to
# readers with any common color vision.
_HIT = _Outcome("detected", (0, 114, 178), None)
_MISS = _Outcome("missed", (230, 159, 0), DASHED)
_INVENTION = _Outcome("invented", (204, 121, 167), DOTTED)
_ANY_CLASS: Color = (90, 90, 90)
"""Color of classes in the legend, where colors of lines are those of outcomes."""


def draw_comparison(
    image: UInt8[np.ndarray, "h w 3"],
    record: Record,
    detections: Detections,
    categories: Sequence[Category],
    *,
    threshold: float = 0.0,
    form: ComparisonForm = "side_by_side",
    iou_threshold: float = 0.5,
    scale: float = 1.0,
    style: DrawingStyle = AUTOMATIC,
) -> Image.Image:
    """Draw detections and ground truth.

    Args:
        image: RGB, the image of ``record`` after its EXIF rotation.
        record: its objects.
        detections: in pixels of ``image``.
        categories: label ``i`` is ``categories[i]``.
        threshold: the lowest score that is drawn and matched.
        form: ``side_by_side``: ground truth at the left, dashed in the colors of classes, detections at the right, both
            with masks where there are any. ``overlay``: in one image hits in solid lines, misses dashed and inventions
            dotted, each in its color, with a legend; crowds and detections in them are left out.
        iou_threshold: least IoU of a hit, see ``match_to_ground_truth``.
        scale: resize the image by so much first.
        style: of labels, lines and legend.

    Raises:
        ValueError: there is no such form.
    """
    if form not in get_args(ComparisonForm):
        raise ValueError(f"the form of a comparison is one of {', '.join(get_args(ComparisonForm))}, not {form!r}")
    kept = detections[detections.scores >= threshold]
    detected = detected_objects(kept, categories, scale, image.shape[:2])
    annotated = annotated_objects(record, categories, scale, with_masks=kept.masks is not None)
    if form == "side_by_side":
        return _side_by_side(image, annotated, detected, scale, style)
    outcomes = match_to_ground_truth(kept, record, iou_threshold=iou_threshold)
    groups = [
        (_INVENTION, [detected[i] for i in outcomes.invented.tolist()]),
        (_MISS, [annotated[i] for i in outcomes.missed.tolist()]),
        (_HIT, [detected[i] for i in outcomes.hits[:, 0].tolist()]),
    ]
    return _overlay(image, groups, scale, style)


def _overlay(
    image: UInt8[np.ndarray, "h w 3"],
    groups: Sequence[tuple[_Outcome, Sequence[DrawnObject]]],
    scale: float,
    style: DrawingStyle,
) -> Image.Image:
    """Objects in the colors of their outcomes; the first group lies on top, and its labels have the most room."""
    objects = [
        one._replace(color=outcome.color, dash=outcome.dash, mask=None) for outcome, group in groups for one in group
    ]
    entries = [
        LegendEntry(outcome.name, len(group), outcome.color, dash=outcome.dash) for outcome, group in reversed(groups)
    ]
    drawing, labels = draw_objects_with_labels(image, objects, scale, style)
    return add_legend(drawing, [one._replace(color=_ANY_CLASS) for one in objects], labels, style, entries)


def _side_by_side(
    image: UInt8[np.ndarray, "h w 3"],
    annotated: Sequence[DrawnObject],
    detected: Sequence[DrawnObject],
    scale: float,
    style: DrawingStyle,
) -> Image.Image:
    left, labels = draw_objects_with_labels(image, annotated, scale, style)
    right, more_labels = draw_objects_with_labels(image, detected, scale, style)
    titles = f"ground truth ({len(annotated)})", f"detections ({len(detected)})"
    size = style.font_size or letter_size(left.size)
    joined = _join(left, right, [Typesetter(style.font).letter(title, "", size, left.width) for title in titles])
    return add_legend(joined, [*annotated, *detected], [*labels, *more_labels], replace(style, font_size=size))


def _join(left: Image.Image, right: Image.Image, lines: Sequence[Lettering | None]) -> Image.Image:
    """Two drawings of one size side by side, with lines of text above them."""
    height = max((line.label_size[1] for line in lines if line is not None), default=0)
    gap = max(2, left.width // 120)
    joined = Image.new("RGB", (left.width + gap + right.width, left.height + height), WHITE)
    draw = ImageDraw.Draw(joined)
    for drawing, line, x in zip((left, right), lines, (0, left.width + gap), strict=True):
        joined.paste(drawing, (x, height))
        if line is not None:
            line.draw(draw, x, 0, BLACK)
    return joined
