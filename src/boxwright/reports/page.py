"""The frame of all pages: one file that needs nothing but itself, a style, and tables and images that answer."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from typing import Any


def require_extra() -> None:
    """Raise ``ValueError`` if the libraries of the extra ``report`` are not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"not installed, but needed for a report: {', '.join(missing)}; "
            "install with: pip install 'boxwright[report]'"
        )


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Render a page.

    Args:
        template: name of its template in this folder.
        content: what the template shows; all of its text is escaped.
    """
    import jinja2

    engine = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    engine.filters["number"] = format_metric
    shared = {"style": _read("page_style.css"), "script": _read("page_script.js")}
    return engine.from_string(_read(template)).render({**shared, **content})


def format_metric(value: float) -> str:
    """Format with three decimals, or a dash where there is nothing to find."""
    return "–" if value < 0 else f"{value:.3f}"


def _read(name: str) -> str:
    return resources.files("boxwright.reports").joinpath(name).read_text(encoding="utf-8")
