"""Sections of a report on errors by kind, and on classes of images."""

from __future__ import annotations

from boxwright.evaluation.class_accuracy import ClassAccuracy
from boxwright.evaluation.error_kinds import KINDS, DetectionErrors
from boxwright.reports.section import Cell, PageTable, Section, count_cell, metric_cell

_MEANINGS = {
    "classification": "the box fits, the class is wrong",
    "localization": "the class is right, the box is off (IoU from 0.1 to 0.5)",
    "both": "class and box are wrong",
    "duplicate": "an object that a better detection is of already",
    "background": "no object is there",
    "missed": "an object that no detection is of",
}


def error_sections(errors: DetectionErrors, name: str = "") -> list[Section]:
    """Make tables of errors by kind, in all and of each class.

    Args:
        errors: of boxes or of masks.
        name: of which, where there are both; empty where there are boxes only.
    """
    title = f": {name}" if name else ""
    costs = [own.cost for own in errors.kinds.values()]
    most = max([*costs, 1e-9])
    kinds = [
        (
            Cell(kind),
            Cell(_MEANINGS[kind]),
            count_cell(errors.kinds[kind].num_errors),
            _cost_cell(errors.kinds[kind].cost, most),
        )
        for kind in KINDS
    ]
    text = (
        f"AP50 is {errors.AP50:.3f}. A kind of error costs what AP50 would gain without it, detections of every score "
        "counted; the costs do not add up. Definitions: TIDE (Bolya et al., 2020)."
    )
    text += (
        f" {errors.near_duplicates:,} pairs of detections of one class with scores of 0.3 or more have an IoU "
        "above 0.7, which are likely of one object; heads without NMS may leave some."
        if errors.near_duplicates
        else " No two detections of one class with scores of 0.3 or more have an IoU above 0.7: none is doubled."
    )
    per_class = [
        (
            Cell(row.name),
            count_cell(row.num_objects),
            metric_cell(row.AP50)._replace(bar=None),  # bars are of costs
            *(_cost_cell(row.kinds[kind].cost, most) for kind in KINDS),
            count_cell(row.near_duplicates),
        )
        for row in errors.per_class
    ]
    return [
        Section(
            title=f"Errors by kind{title}",
            text=text,
            tables=[PageTable(("kind", "meaning", "errors", "costs AP50"), kinds)],
        ),
        Section(
            title=f"What they cost, class by class{title}",
            tables=[PageTable(("class", "objects", "AP50", *KINDS, "doubled"), per_class)],
        ),
    ]


def accuracy_sections(accuracy: ClassAccuracy) -> list[Section]:
    """Make the table of the classes of a classifier."""
    rows = [
        (
            Cell(row.name),
            count_cell(row.num_images),
            metric_cell(row.top1),
            metric_cell(row.top5),
            Cell(row.taken_for or ""),
        )
        for row in accuracy.per_class
    ]
    columns = ("class", "images", "top-1", "top-5", "else mostly taken for")
    return [Section(title="Classes", tables=[PageTable(columns, rows)])]


def _cost_cell(cost: float, most: float) -> Cell:
    return Cell(f"{cost:.3f}", cost, max(cost, 0.0) / most)
