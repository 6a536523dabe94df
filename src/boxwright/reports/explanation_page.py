"""The explanation of a detection as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw

from boxwright.drawing import drawing_uri
from boxwright.files import write_text
from boxwright.reports.charts import lines_chart
from boxwright.reports.page import render_page
from boxwright.reports.section import Section

_SIDE = 720
"""Longest side of an image of the page, in pixels."""

_WARM = np.array([230.0, 80.0, 20.0])
"""Color of the most salient pixels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplanationPage:
    """Content of the page.

    Args:
        title: of the page.
        facts: for its top, by name.
        image: RGB.
        box: of the object, corners in pixels of the image.
        saliency: of each pixel.
        fractions: of the pixels, from 0 to 1.
        insertion: score when so many of the most salient pixels are visible alone.
        deletion: score when so many of them are hidden.
    """

    title: str
    facts: Mapping[str, str]
    image: UInt8[np.ndarray, "h w 3"]
    box: tuple[float, float, float, float]
    saliency: Float32[np.ndarray, "h w"]
    fractions: Sequence[float]
    insertion: Sequence[float]
    deletion: Sequence[float]


def write_explanation(path: Path, page: ExplanationPage) -> None:
    """Write the page; an older one is replaced once this one is complete."""
    curves = [("inserted", page.insertion), ("deleted", page.deletion)]
    content = {
        "title": page.title,
        "summary": page.facts,
        "images": [
            ("The detection", drawing_uri(_with_box(page.image, page.box))),
            ("Saliency: the warmer, the more the score depends on it", drawing_uri(_warm(page))),
        ],
        "faithfulness": Section(
            title="Does it hold?",
            charts=[("The score as the most salient pixels come in, and as they go", _chart(page, curves))],
            remarks=_REMARKS,
        ),
    }
    write_text(path, render_page("explanation_template.html", content))


_REMARKS = (
    "Inserted: the image has no contrast, and its most salient pixels are put in first. Deleted: they are taken away "
    "first.",
    "Where the saliency is right, the score rises early when they are inserted (area near 1) and falls early when they "
    "are deleted (area near 0).",
)


def _chart(page: ExplanationPage, curves: Sequence[tuple[str, Sequence[float]]]) -> str:
    return lines_chart(page.fractions, curves, "fraction of the pixels, the most salient first", "score × IoU")


def _warm(page: ExplanationPage) -> Image.Image:
    """Lay a color over the gray image: none where a pixel has no effect, opaque where it has the most."""
    positive = page.saliency.clip(min=0)
    weight = (positive / max(float(positive.max()), 1e-9))[..., None] ** 0.8
    gray = page.image.mean(2, keepdims=True).repeat(3, 2) * 0.6 + 80
    return _with_box((gray * (1 - weight) + _WARM * weight).clip(0, 255).astype(np.uint8), page.box)


def _with_box(image: UInt8[np.ndarray, "h w 3"], box: tuple[float, float, float, float]) -> Image.Image:
    scale = _SIDE / max(image.shape[:2])
    size = tuple(round(side * scale) for side in image.shape[1::-1])
    drawing = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    ImageDraw.Draw(drawing).rectangle([side * scale for side in box], outline=(0, 114, 178), width=3)
    return drawing
