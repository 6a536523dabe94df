"""A comparison of models as one HTML file: numbers with intervals, and images that they differ in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.files import write_text
from boxwright.reports.page import render_page
from boxwright.reports.page_images import ReportImage, show_images
from boxwright.reports.report import ReportFacts
from boxwright.reports.section import PageImage, Section
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
        images: title, text and images of each part, two for each image: of the first and of the second model.
            Detections are drawn whatever their scores.
        categories: label ``i`` is ``categories[i]``.
        facts: beside the numbers.
    """
    total = sum(len(own) for _, _, own in images)
    drawn = [
        Section(title=name, text=text, images=_pair(show_images(own, categories, 0.0, num_images=total)))
        for name, text, own in images
        if own
    ]
    content = {"title": title, "tasks": [], "sections": [*sections, *drawn]}
    write_text(path, render_page("report_template.html", {**content, **vars(facts)}))


def _pair(images: Sequence[PageImage]) -> list[PageImage]:
    """Put each two drawings of one image beside each other."""
    return [
        PageImage(
            left.name,
            f"left {left.note}; right {right.note}",
            [(one.note, uri) for one in (left, right) for _, uri in one.drawings],
        )
        for left, right in zip(images[::2], images[1::2], strict=True)
    ]
