"""The explanation of a detection as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from boxwright.drawing import drawing_uri
from boxwright.drawing.marks import MarkedSteps
from boxwright.files import write_text
from boxwright.reports.charts import lines_chart
from boxwright.reports.marked_figure import make_figure
from boxwright.reports.page import render_page
from boxwright.reports.section import Section

_SIDE = 720
"""Longest side of a saliency map of the page, in pixels."""

_LARGEST_SIDE = 1400
"""Longest side of the image below marks, in pixels; larger images are made smaller."""

_WARM = np.array([230.0, 80.0, 20.0])
"""Color of the most salient pixels."""

_REMARKS = (
    "Inserted: the image has no contrast, and its most salient pixels are put in first. Deleted: they are taken away "
    "first.",
    "Where the saliency is right, the score rises early when they are inserted (area near 1) and falls early when they "
    "are deleted (area near 0).",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SaliencyPart:
    """Saliency on the page.

    Args:
        saliency: of each pixel.
        fractions: of the pixels, from 0 to 1.
        insertion: score when so many of the most salient pixels are visible alone.
        deletion: score when so many of them are hidden.
    """

    saliency: Float32[np.ndarray, "h w"]
    fractions: Sequence[float]
    insertion: Sequence[float]
    deletion: Sequence[float]


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplanationPage:
    """Content of the page.

    Args:
        title: of the page.
        facts: for its top, by name.
        image: RGB.
        box: of the object, corners in pixels of the image.
        figures: title, text and steps of each figure with marks.
        sections: below the figures.
        saliency: None where it was not asked for.
    """

    title: str
    facts: Mapping[str, str]
    image: UInt8[np.ndarray, "h w 3"]
    box: tuple[float, float, float, float]
    figures: Sequence[tuple[str, str, MarkedSteps]] = ()
    sections: Sequence[Section] = ()
    saliency: SaliencyPart | None = None


def write_explanation(path: Path, page: ExplanationPage) -> None:
    """Write the page; an older one is replaced once this one is complete."""
    height, width = page.image.shape[:2]
    below = Image.fromarray(np.ascontiguousarray(page.image), "RGB")
    below.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    content = {
        "title": page.title,
        "summary": page.facts,
        "figures": [make_figure(title, text, steps, (width, height)) for title, text, steps in page.figures],
        "sections": page.sections,
        "image": drawing_uri(below),
        "width": width,
        "height": height,
        "part": _part_around(page.box, (width, height)),
        "images": [],
    }
    if page.saliency is not None:
        content |= {"images": _maps(page, page.saliency.saliency), "faithfulness": _faithfulness(page.saliency)}
    write_text(path, render_page("explanation_template.html", content))


def _maps(page: ExplanationPage, saliency: Float32[np.ndarray, "h w"]) -> list[tuple[str, str]]:
    return [
        ("The detection", drawing_uri(_with_box(page.image, page.box))),
        ("Saliency: the warmer, the more the score depends on it", drawing_uri(_warm(page, saliency))),
    ]


def _faithfulness(own: SaliencyPart) -> Section:
    curves = [("inserted", own.insertion), ("deleted", own.deletion)]
    chart = lines_chart(own.fractions, curves, "fraction of the pixels, the most salient first", "score × IoU")
    return Section(
        title="Does it hold?",
        charts=[("The score as the most salient pixels come in, and as they go", chart)],
        remarks=_REMARKS,
    )


def _part_around(box: tuple[float, float, float, float], size: tuple[int, int]) -> str:
    """Return x, y, width and height of a part twice as large as the box, with the shape of the image; none if all."""
    x1, y1, x2, y2 = box
    scale = 2 * max((x2 - x1) / size[0], (y2 - y1) / size[1], 0.02)
    if scale >= 1:
        return ""
    width, height = scale * size[0], scale * size[1]
    left = min(max((x1 + x2 - width) / 2, 0), size[0] - width)
    top = min(max((y1 + y2 - height) / 2, 0), size[1] - height)
    return f"{left:.1f} {top:.1f} {width:.1f} {height:.1f}"


def _warm(page: ExplanationPage, saliency: Float32[np.ndarray, "h w"]) -> Image.Image:
    """Lay a color over the gray image: none where a pixel has no effect, opaque where it has the most."""
    positive = saliency.clip(min=0)
    weight = (positive / max(float(positive.max()), 1e-9))[..., None] ** 0.8
    gray = page.image.mean(2, keepdims=True).repeat(3, 2) * 0.6 + 80
    return _with_box((gray * (1 - weight) + _WARM * weight).clip(0, 255).astype(np.uint8), page.box)


def _with_box(image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> Image.Image:
    scale = _SIDE / max(image.shape[:2])
    size = tuple(round(side * scale) for side in image.shape[1::-1])
    drawing = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    ImageDraw.Draw(drawing).rectangle([side * scale for side in box], outline=(0, 114, 178), width=3)
    return drawing
