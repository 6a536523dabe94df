"""The frame of all pages: one file that needs nothing but itself, a style, and tables and images that answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

_SECTION = re.compile(r"<section(?P<rest>[^>]*>\s*<h2>(?P<heading>.*?)</h2>)", re.DOTALL)
"""Text of users is escaped, so that every tag is one of a template."""


def require_extra() -> None:
    """Raise ``ValueError`` if the libraries of the extra ``report`` are not installed."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ValueError(
            f"not installed, but needed for a report: {', '.join(missing)}; "
            "install with: pip install 'boxwright[report]'"
        )


def render_page(template: str, content: Mapping[str, Any]) -> str:
    """Render a page in the frame that all of them have: a style, a script, and a table of contents.

    Args:
        template: name of its template in this folder.
        content: what the template shows, with ``title`` and ``summary`` for its top; all of its text is escaped.
    """
    import jinja2

    engine = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"number": format_metric, "list_contents": list_contents, "number_sections": number_sections}
    shared = {"style": _read("page_style.css"), "script": _read("page_script.js")}
    return engine.get_template(template).render({**shared, **content})


def list_contents(body: Markup) -> list[tuple[str, Markup]]:
    """List the names that ``number_sections`` gives, with the headings of their sections."""
    headings = enumerate(_SECTION.finditer(body), 1)
    return [(f"section-{index}", type(body)(match["heading"])) for index, match in headings]


def number_sections(body: Markup) -> Markup:
    """Name each section with a heading by its number, for links."""
    numbers = itertools.count(1)
    return type(body)(_SECTION.sub(lambda match: f'<section id="section-{next(numbers)}"{match["rest"]}', body))


def format_metric(value: float) -> str:
    """Format with three decimals, or a dash where there is nothing to find."""
    return "–" if value < 0 else f"{value:.3f}"


def _read(name: str) -> str:
    return resources.files("boxwright.reports").joinpath(name).read_text(encoding="utf-8")
