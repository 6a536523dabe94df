"""Histograms of the sizes of objects and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.reports.svg_chart import draw_svg, line_color

_NUM_BARS = 24


def size_charts(tables: Sequence[ObjectTable]) -> list[tuple[str, str]]:
    """Draw the sizes of objects and images, over some splits; captions and SVG of what has more than one value.

    Args:
        tables: objects and images of each split.
    """
    sides = _join([np.sqrt(one.box_area.clip(min=0)) for one in tables])
    relative = _join([np.sqrt(one.box_area.clip(min=0) / one.image_sizes.prod(1)) for one in tables])
    longest = _join([one.sizes.max(1, initial=0) for one in tables])
    numbers = _join([np.bincount(one.image_index, minlength=len(one.records)) for one in tables])
    drawn = [
        ("Sizes of objects: root of the box's area, in pixels", "object-pixels", "pixels", sides, True),
        ("Sizes of objects: root of the box's area, in % of the image", "object-parts", "%", 100 * relative, True),
        ("Objects in an image", "object-numbers", "objects", numbers, False),
        ("Sizes of images: the longer side, in pixels", "image-pixels", "pixels", longest, False),
    ]
    charts = [
        (_caption(caption, values), _bars(name, unit, values, is_logarithmic))
        for caption, name, unit, values, is_logarithmic in drawn
    ]
    return [(caption, svg) for caption, svg in charts if svg]


def _join(parts: Sequence[np.ndarray]) -> Float64[np.ndarray, " n"]:
    values = np.concatenate([np.zeros(0), *parts])
    finite: Float64[np.ndarray, " n"] = values[np.isfinite(values)]
    return finite


def _caption(caption: str, values: Float64[np.ndarray, " n"]) -> str:
    return f"{caption} · median {np.median(values):.3g}" if len(values) else caption


def _label_few(value: float, _: object) -> str:
    """Label 2 and 5 times powers of ten, which leaves room between."""
    return f"{value:g}" if f"{value:.0e}"[0] in "25" else ""


def _bars(name: str, unit: str, values: Float64[np.ndarray, " n"], is_logarithmic: bool) -> str:
    values = values[values > 0] if is_logarithmic else values
    if not len(values) or values.min() == values.max():
        return ""
    low, high = float(values.min()), float(values.max())
    edges = np.geomspace(low, high, _NUM_BARS + 1) if is_logarithmic else np.linspace(low, high, _NUM_BARS + 1)
    # Rounding may leave the ends outside.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    counts, _ = np.histogram(values, edges)

    def plot(axes: Any) -> None:
        axes.bar(edges[:-1], counts, width=0.94 * np.diff(edges), align="edge", color=line_color(0), alpha=0.8)
        if is_logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(_label_few)

    return draw_svg(name, plot, unit, "number")
