"""Marks of an explanation as SVG over an image, with a slider for steps and boxes to tick for groups."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import NamedTuple

import numpy as np
from PIL import Image

from boxwright.drawing.marks import MAP_COLOR, BoxMark, MapMark, Mark, MarkedSteps, MarkGroup, PointMark
from boxwright.reports.svg_chart import css_color

_DRAWN = 1000
"""Longest side that widths and radii of marks are meant for, in pixels."""


class Overlay(NamedTuple):
    """Marks of a group as SVG; ``step`` is -1 for those of all steps."""

    step: int
    group: str
    svg: str


class MarkedFigure(NamedTuple):
    """A figure of a page.

    Args:
        title: above it.
        text: what it shows.
        steps: of the explanation.
        overlays: over the image.
        groups: name, color (empty where there is none) and True for those that are shown first.
    """

    title: str
    text: str
    steps: MarkedSteps
    overlays: list[Overlay]
    groups: list[tuple[str, str, bool]]


def make_figure(title: str, text: str, steps: MarkedSteps, size: tuple[int, int]) -> MarkedFigure:
    """Write the marks of all steps as SVG.

    Args:
        title: above the figure.
        text: what it shows.
        steps: in pixels of the image.
        size: (width, height) of the image.
    """
    unit = max(size) / _DRAWN
    colors = {name: css_color(color) for name, color in steps.colors}
    groups = [(name, colors.get(name, ""), name not in steps.hidden) for name in steps.group_names()]
    return MarkedFigure(title, text, steps, [_overlay(group, unit) for group in steps.groups], groups)


def _overlay(group: MarkGroup, unit: float) -> Overlay:
    return Overlay(
        -1 if group.step is None else group.step, group.name, "".join(_shape(mark, unit) for mark in group.marks)
    )


def _shape(mark: Mark, unit: float) -> str:
    if isinstance(mark, MapMark):
        x1, y1, x2, y2 = mark.box
        return (
            f'<image x="{x1:.2f}" y="{y1:.2f}" width="{x2 - x1:.2f}" height="{y2 - y1:.2f}" '
            f'preserveAspectRatio="none" class="cells" href="{_cells_uri(mark)}"/>'
        )
    title = f"<title>{escape(mark.text)}</title>" if mark.text else ""
    if isinstance(mark, PointMark):
        x, y = mark.point
        return (
            f'<circle cx="{x:.2f}" cy="{y:.2f}" r="{mark.radius * unit:.2f}" fill="{css_color(mark.color)}" '
            f'fill-opacity="{mark.opacity:.2f}">{title}</circle>'
        )
    return _box(mark, unit, title)


def _box(mark: BoxMark, unit: float, title: str) -> str:
    x1, y1, x2, y2 = mark.box
    dash = f' stroke-dasharray="{9 * unit:.2f} {6 * unit:.2f}"' if mark.is_dashed else ""
    return (
        f'<rect x="{x1:.2f}" y="{y1:.2f}" width="{max(x2 - x1, 0):.2f}" height="{max(y2 - y1, 0):.2f}" '
        f'stroke="{css_color(mark.color)}" stroke-width="{mark.width * unit:.2f}" stroke-opacity="{mark.opacity:.2f}" '
        f'fill="{css_color(mark.color)}" fill-opacity="{mark.fill:.2f}"{dash}>{title}</rect>'
    )


def _cells_uri(mark: MapMark) -> str:
    opacities = mark.opacities()
    pixels = np.empty((*opacities.shape, 4), dtype=np.uint8)
    pixels[..., :3], pixels[..., 3] = MAP_COLOR, opacities
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
