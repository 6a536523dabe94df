"""Sections of a page: tables, a matrix, charts, images, and words on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from boxwright.reports.page import format_metric


class Cell(NamedTuple):
    """One cell of a table.

    Args:
        text: that is shown.
        value: that the column is sorted by; None stands at the end.
        bar: fraction of the cell that is filled, in [0, 1]; None for no bar.
        color: of a square before the text, as CSS; none where empty.
    """

    text: str
    value: float | None = None
    bar: float | None = None
    color: str = ""


def count_cell(count: int) -> Cell:
    """Make the cell of a count, by which the column is sorted."""
    return Cell(f"{count:,}", count)


def metric_cell(value: float) -> Cell:
    """Make the cell of a number from 0 to 1, with a bar; a dash for -1, where there is nothing to measure."""
    return Cell(format_metric(value)) if value < 0 else Cell(format_metric(value), value, value)


@dataclass(frozen=True)
class PageTable:
    """A table that users sort.

    Args:
        columns: heads.
        rows: cells of each row; the first one is its name.
        caption: above it; a table with one can be closed, and is, but for the first of its section.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def columns_of_words(self) -> set[int]:
        """Return the indices of columns without numbers, the first one left out."""
        columns = range(1, len(self.columns))
        return {
            index
            for index in columns
            if all(row[index].value is None for row in self.rows) and any(len(row[index].text) > 1 for row in self.rows)
        }


class MatrixCell(NamedTuple):
    """One cell of a matrix.

    Args:
        text: that is shown.
        weight: strength of its color, in [0, 1].
        is_hit: the color is that of what is right.
        meaning: in words.
    """

    text: str
    weight: float
    is_hit: bool
    meaning: str


@dataclass(frozen=True)
class Matrix:
    """A matrix whose cells are colored.

    Args:
        corner: the meaning of rows and columns.
        columns: heads.
        rows: the head and the cells of each.
    """

    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[MatrixCell]]]


class PageImage(NamedTuple):
    """One image of a page, or two drawings of it side by side.

    Args:
        name: of its file.
        note: in a few words.
        drawings: meaning of each, and the JPEG as a ``data:`` address.
    """

    name: str
    note: str
    drawings: Sequence[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """One section, whose parts stand in this order; empty ones are left out.

    Args:
        title: above it.
        text: what it shows, in a sentence or two.
        items: a list of lines, the most important first.
        facts: by name.
        matrix: of classes.
        tables: of numbers.
        charts: captions and SVG.
        remarks: paragraphs beside the charts, on how to read them.
        images: drawn.
    """

    title: str
    text: str = ""
    items: Sequence[str] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    matrix: Matrix | None = None
    tables: Sequence[PageTable] = ()
    charts: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = ()
    images: Sequence[PageImage] = ()
