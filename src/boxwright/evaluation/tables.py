"""Metrics as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from boxwright.evaluation.class_accuracy import ClassAccuracy
from boxwright.evaluation.coco_metrics import UNDEFINED, CocoMetrics
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
from boxwright.evaluation.held_out import HeldOutCounts
from boxwright.evaluation.operating_points import OperatingPoint
from boxwright_runtime.printable_names import printable_text

_COLUMNS = ("objects", "AP", "AP50", "APs", "APm", "APl")


def evaluation_tables(evaluation: Evaluation | ClassEvaluation) -> Group:
    """Return numbers and a row per class, of boxes and of masks, and notes, for ``rich.print``."""
    notes = [Text(f"Note: {note}", style="yellow") for note in evaluation.notes]
    if isinstance(evaluation, ClassEvaluation):
        return Group(*accuracy_tables(evaluation.accuracy), *notes)
    boxes = (numbers_table(evaluation.boxes), class_table(evaluation.boxes))
    notes = [*findings_lines(evaluation), *notes]
    if evaluation.masks is None:
        return Group(*boxes, *notes)
    masks = (numbers_table(evaluation.masks), class_table(evaluation.masks))
    return Group(Text("boxes", style="bold"), *boxes, Text("\nmasks", style="bold"), *masks, *notes)


def findings_lines(evaluation: Evaluation) -> list[Text]:
    """Return the largest causes of lost precision, a line each."""
    if not evaluation.findings:
        return []
    lines = [Text(f"{number}. {one.text}") for number, one in enumerate(evaluation.findings, 1)]
    return [Text("where the boxes' precision is lost", style="bold"), *lines]


def accuracy_tables(accuracy: ClassAccuracy) -> tuple[Table, Table]:
    """Return accuracies, then a row per class: images, accuracies, and the class that it is mostly taken for."""
    numbers = Table(box=None, pad_edge=False)
    for name in ("images", "top-1", "top-5"):
        numbers.add_column(name, justify="right")
    numbers.add_row(f"{accuracy.num_images:,}", format_number(accuracy.top1), format_number(accuracy.top5))
    classes = Table(pad_edge=False)
    classes.add_column("class", overflow="fold")
    for name in ("images", "top-1", "top-5"):
        classes.add_column(name, justify="right")
    classes.add_column("else mostly taken for", overflow="fold")
    for row in accuracy.per_class:
        values = (format_number(row.top1), format_number(row.top5))
        classes.add_row(_show_name(row.name), f"{row.num_images:,}", *values, _show_name(row.taken_for or ""))
    return numbers, classes


def numbers_table(metrics: CocoMetrics) -> Table:
    """Return average precision in one row, average recall in the next."""
    table = Table(box=None, pad_edge=False)
    numbers = list(metrics.numbers().items())
    precision, recall = numbers[:6], numbers[6:]
    for name, _ in precision:
        table.add_column(name, justify="right")
    table.add_row(*(format_number(value) for _, value in precision))
    table.add_row()
    table.add_row(*(Text(name, style="bold") for name, _ in recall))
    table.add_row(*(format_number(value) for _, value in recall))
    return table


def class_table(metrics: CocoMetrics) -> Table:
    """Return a row per class: objects, AP, AP50 and AP by size."""
    table = Table(pad_edge=False)
    table.add_column("class", overflow="fold")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for row in metrics.per_class:
        values = (row.AP, row.AP50, row.APs, row.APm, row.APl)
        table.add_row(_show_name(row.name), f"{row.num_objects:,}", *(format_number(value) for value in values))
    return table


def operating_tables(points: Sequence[OperatingPoint], held_out: HeldOutCounts) -> Group:
    """Return a row per class, its threshold and what such ones do on images that they were not tuned on, and notes."""
    table = Table(pad_edge=False)
    table.add_column("class", overflow="fold")
    for name in ("threshold", "precision", "recall", "F1", "F1 with 0.5"):
        table.add_column(name, justify="right")
    for point, tested, untuned in zip(points, held_out.tuned, held_out.untuned, strict=True):
        values = (tested.precision, tested.recall, tested.f1, untuned.f1)
        table.add_row(_show_name(point.name), f"{point.threshold:.4g}", *map(format_number, values))
    notes = [Text(f"Note: {printable_text(one.name)}: {one.note}", style="yellow") for one in points if one.note]
    return Group(table, *notes)


def _show_name(name: str) -> Text:
    """Make a cell of a name: as Text, since one in square brackets would be read as markup."""
    return Text(printable_text(name))


def format_number(value: float) -> str:
    """Format with three decimals, or a dash where there is nothing to find."""
    return "–" if value == UNDEFINED else f"{value:.3f}"
