"""A comparison of models as one HTML file: numbers with intervals, and images that they differ in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.files import write_text
from boxwright.reports.page import render_page
from boxwright.reports.report import ReportFacts, ReportImage, show_image
from boxwright.reports.section import Section
from boxwright.structures import Category


def write_comparison_page(
    path: Path,
    *,
    title: str,
    sections: Sequence[Section],
    images: Sequence[tuple[str, str, Sequence[ReportImage]]],
    categories: Sequence[Category],
    facts: ReportFacts,
) -> None:
    """Write the page; an older one is replaced once this one is complete.

    Args:
        path: of the HTML file. Its folder is made.
        title: of the page.
        sections: tables, in this order.
        images: title, text and images of each part; detections are drawn whatever their scores.
        categories: label ``i`` is ``categories[i]``.
        facts: beside the numbers.
    """
    content = {
        "title": title,
        "tasks": [],
        "curves": [],
        "sections": sections,
        "images": [
            (name, text, [show_image(one, categories, 0.0) for one in shown]) for name, text, shown in images if shown
        ],
    }
    write_text(path, render_page("report_template.html", {**content, **vars(facts)}))
