"""Comparisons as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from boxwright.evaluation.comparison import EvaluationComparison, MetricDifference
from boxwright.evaluation.tables import format_number
from boxwright.workflows.compare_result import CompareResult
from boxwright_runtime.printable_names import printable_text


def comparison_tables(result: CompareResult) -> Group:
    """Return a table of the models, and of each but the first its differences, its classes and a line on objects."""
    first, *others = result.models
    parts: list[RenderableType] = [_models_table(result)]
    for index, other in enumerate(others):
        title = f"{printable_text(other.name)} against {printable_text(first.name)}"
        forms = [("", result.boxes[index])] + ([(", masks", result.masks[index])] if result.masks else [])
        for form, comparison in forms:
            parts += [Text(f"\n{title}{form}", style="bold"), _differences_table(comparison)]
        objects = result.boxes[index].objects
        parts.append(
            Text(
                f"objects at the scores of the best F1: {objects.both:,} both detect, {objects.only_first:,} the first "
                f"alone, {objects.only_second:,} the second alone, {objects.neither:,} none"
            )
        )
    return Group(*parts)


def _models_table(result: CompareResult) -> Table:
    table = Table(pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("AP", "AP50", "AP75", "parameters", "GMAC", "ms"):
        table.add_column(name, justify="right")
    for one in result.models:
        boxes = one.evaluation.boxes
        costs = [(one.params, "{:,}"), (one.gmac, "{:.2f}"), (one.latency_ms, "{:.1f}")]
        cells = ["" if value is None else form.format(value) for value, form in costs]
        numbers = map(format_number, (boxes.AP, boxes.AP50, boxes.AP75))
        table.add_row(Text(printable_text(one.name)), *numbers, *cells)
    return table


def _differences_table(comparison: EvaluationComparison) -> Table:
    """Return numbers, then classes; a star stands where the interval does not hold 0."""
    table = Table(pad_edge=False)
    table.add_column("", overflow="fold")
    for name in ("first", "second", "difference", "95 % of samples"):
        table.add_column(name, justify="right")
    for one in comparison.numbers:
        table.add_row(one.name, *_cells(one))
    table.add_section()
    for one in comparison.per_class:
        table.add_row(Text(printable_text(one.name)), *_cells(one))
    return table


def _cells(one: MetricDifference) -> list[str]:
    difference = "–" if one.value is None else f"{one.value:+.3f}{'*' if one.is_clear else ' '}"
    interval = "–" if one.lower is None else f"{one.lower:+.3f} to {one.upper:+.3f}"
    return [format_number(one.first), format_number(one.second), difference, interval]
