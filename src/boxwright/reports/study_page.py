"""A study as one HTML file: a table of its variations, their spread and their learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from boxwright.files import write_text
from boxwright.reports.charts import curves_chart, spread_chart
from boxwright.reports.page import render_page
from boxwright.reports.section import Cell, PageTable, Section


class StudyPageRow(NamedTuple):
    """A variation.

    Args:
        name: of it.
        cells: text and number of each column; None sorts at the end.
        values: the compared number of each run.
        curves: steps and the compared number at each evaluation, of each run.
    """

    name: str
    cells: tuple[tuple[str, float | None], ...]
    values: tuple[float, ...]
    curves: tuple[tuple[list[float], list[float]], ...]


@dataclass(frozen=True, kw_only=True)
class StudyPage:
    """Content of the page.

    Args:
        title: of the page.
        facts: for its top, by name.
        columns: names of the columns after that of the variation.
        rows: the variations.
        measure: name of the compared number.
        options: the options of all runs and of the variations, as YAML.
        command: that repeats the study.
    """

    title: str
    facts: Mapping[str, str]
    columns: list[str]
    rows: tuple[StudyPageRow, ...]
    measure: str
    options: str
    command: str


_EXPLANATION = (
    "Means over the seeds with their standard deviation, of the last evaluation. In brackets, the interval of 95 % of "
    "the paired difference over the seeds (Student's t): where it holds 0, the runs do not tell the two apart. GMAC "
    "are of prediction of one image."
)


def write_study_page(path: Path, page: StudyPage) -> None:
    """Write the page; an older one is replaced once this one is complete."""
    charts = [
        (
            "Each run, and the mean of each variation",
            spread_chart([(one.name, one.values) for one in page.rows], page.measure),
        ),
        (
            "Learning curves, means over the seeds",
            curves_chart([(one.name, one.curves) for one in page.rows], page.measure),
        ),
    ]
    rows = [[Cell(one.name), *(Cell(text, value) for text, value in one.cells)] for one in page.rows]
    sections = [
        Section(title="Variations", text=_EXPLANATION, tables=[PageTable(("variation", *page.columns), rows)]),
        Section(title="Runs", charts=[(caption, svg) for caption, svg in charts if svg]),
    ]
    content = {
        "title": page.title,
        "summary": page.facts,
        "sections": [one for one in sections if one.tables or one.charts],
        "options": page.options,
        "command": page.command,
    }
    write_text(path, render_page("study_template.html", content))
