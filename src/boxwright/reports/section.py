"""Sections of a report that are a table, charts, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Cell(NamedTuple):
    """One cell of a table.

    Args:
        text: that is shown.
        value: that the column is sorted by; None stands at the end.
        bar: fraction of the cell that is filled, in [0, 1]; None for no bar.
    """

    text: str
    value: float | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Section:
    """One section.

    Args:
        title: above it.
        text: what it shows, in a sentence or two.
        columns: heads of the table.
        rows: cells of each row; the first one is its name.
        charts: captions and SVG.
    """

    title: str
    text: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    charts: Sequence[tuple[str, str]] = ()
