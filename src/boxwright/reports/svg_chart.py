"""One chart as an SVG element whose colors follow its page from light to dark."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any

from boxwright.drawing import class_color

# matplotlib needs true colors: these stand for the page's own until the SVG is written.
_INK, _GRID = "#010101", "#020202"
_VARIABLES = {_INK: "var(--muted)", _GRID: "var(--line)", "#0077bb": "var(--blue)"}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "boxwright",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 2.4,
}


def line_color(label: int) -> str:
    """Return the color of a class, or of a line by its number."""
    return css_color(class_color(label))


def css_color(color: tuple[int, int, int]) -> str:
    """Write a color, RGB from 0 to 255, as a page does."""
    return "#{:02x}{:02x}{:02x}".format(*color)


def legend_name(name: str) -> str:
    """Prepare a name for the legend: cut to its room, and not read as a formula or as a request to hide."""
    name = name if len(name) <= 24 else f"{name[:23]}…"
    return name.replace("$", r"\$").lstrip("_")


def draw_svg(name: str, plot: Callable[[Any], None], x_label: str, y_label: str) -> str:
    """Return what ``plot`` draws into its axes, as an ``<svg>`` element without any address in it.

    ``name`` keeps the ids of one chart apart from those of the others on its page.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.margins(x=0.01)
        if len(axes.lines) > 1:
            longest = max(len(str(line.get_label())) for line in axes.lines)
            figure.legend(loc="outside upper left", ncols=max(1, min(4, 80 // (longest + 8))))
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # Text stays text, in fonts of the browser.
            warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _for_page(buffer.getvalue(), name, f"{y_label} over {x_label}")


def _for_page(svg: str, name: str, label: str) -> str:
    """Turn an SVG file into an element of a page: its head gone, its ids its own, its colors the page's."""
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None  # matplotlib writes one
    body = svg[svg.index(">", box.end()) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(\bid="|\bhref="#|\burl\(#)', rf"\g<1>{name}-", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, variable)
    return f'<svg role="img" aria-label="{label}" {box.group()}>{body}'
