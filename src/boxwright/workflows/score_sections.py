"""Sections of a report on scores: operating points of each class, and calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation
from boxwright.evaluation.operating_points import (
    DEFAULT_THRESHOLD,
    OperatingPoint,
    count_at,
    find_operating_points,
    mean_f1,
    trace_f1,
)
from boxwright.evaluation.score_calibration import Calibration, ScoreScaling, calibrate
from boxwright.evaluation.threshold_target import Target
from boxwright.reports.score_charts import ReliabilityBar, f1_chart, reliability_chart
from boxwright.reports.section import Cell, PageTable, Section, count_cell, metric_cell
from boxwright.score_tuning import ScoreTuning

_TARGETS = (Target(), Target("precision", 0.9), Target("recall", 0.9))

_MOST_LINES = 8
_TRACED = np.linspace(0.0, 1.0, 101)

_F1_REMARKS = (
    "F1 is the harmonic mean of precision and recall: 2 TP / (2 TP + FP + missed).",
    "Where a curve is flat around its top, the threshold matters little. Where tops of classes lie apart, one "
    "threshold for all of them costs some.",
)


def operating_section(evaluation: Evaluation, tuning: ScoreTuning | None = None) -> Section:
    """Show the thresholds of each class that reach a target, with what they do, at IoU 0.5.

    Args:
        evaluation: of boxes.
        tuning: of the model, whose thresholds are shown first.
    """
    matched, names = evaluation.matched, [one.name for one in evaluation.data.categories]
    tables = []
    if tuning is not None:
        caption = f"Stored in the model, {tuning.target} on {tuning.data.name}"
        tables.append(_points_table(caption, count_at(matched, names, tuning.thresholds)))
    for target in _TARGETS:
        points = evaluation.thresholds if target == Target() else find_operating_points(matched, names, target)
        tables.append(_points_table(_caption(target), points))
    tables.append(_points_table(f"Score of at least {DEFAULT_THRESHOLD}", count_at(matched, names, DEFAULT_THRESHOLD)))
    f1 = trace_f1(matched, len(names), _TRACED)
    numbers = np.bincount(matched.object_labels[matched.counted[0]], minlength=len(names))
    largest = sorted(np.argsort(-numbers, kind="stable")[:_MOST_LINES].tolist())
    named = [(label, names[label], f1[label].tolist()) for label in largest if numbers[label]]
    chart = f1_chart(_TRACED.tolist(), named)
    return Section(
        title="Operating points",
        text="The least score of detections of each class that reaches a target, and the boxes from it on, at IoU 0.5. "
        "They were chosen on these images, and look better on them than on others: `boxwright tune-thresholds` tells "
        "by how much, and stores them in the model.",
        tables=tables,
        charts=[("F1 over the threshold, of the classes with most objects", chart)] if chart else (),
        remarks=_F1_REMARKS if chart else (),
    )


def _caption(target: Target) -> str:
    if target.measure == "f1":
        return "The best F1"
    other = "recall" if target.measure == "precision" else "precision"
    return f"{target.measure.capitalize()} of {target.value:g}, with as much {other} as there is"


def _points_table(caption: str, points: Sequence[OperatingPoint]) -> PageTable:
    columns = ("class", "threshold", "precision", "recall", "F1", "right", "false", "missed")
    notes = any(one.note for one in points)
    rows = [[*_point_row(one), *([Cell(one.note)] if notes else ())] for one in points]
    return PageTable((*columns, "note") if notes else columns, rows, f"{caption}: F1 {mean_f1(points):.3f} on average")


def _point_row(point: OperatingPoint) -> list[Cell]:
    ratios = map(metric_cell, (point.precision, point.recall, point.f1))
    counts = (point.true_positives, point.false_positives, point.missed)
    threshold = Cell(f"{point.threshold:.4g}", point.threshold)
    return [Cell(point.name), threshold, *ratios, *map(count_cell, counts)]


def calibration_section(evaluation: Evaluation | ClassEvaluation, tuning: ScoreTuning | None = None) -> Section:
    """Show how often detections of a score are right.

    Args:
        evaluation: of boxes or of classes.
        tuning: of the model, whose scales are shown too.
    """
    calibration, caption = evaluation.calibration, "Detections by score"
    names = [one.name for one in evaluation.data.categories]
    scaled = None
    if tuning is not None and isinstance(evaluation, Evaluation):
        matched = evaluation.matched
        scaling = ScoreScaling(tuning.temperatures, tuning.shifts)
        scaled = calibrate(matched.with_scores(scaling.apply(matched.scores, matched.labels)), len(names))
    text = f"The expected calibration error is {calibration.error:.3f}: the mean difference of score and precision."
    if scaled is not None:
        text += f" With the scales that the model has it is {scaled.error:.3f}."
    what = "detections that are right at IoU 0.5" if isinstance(evaluation, Evaluation) else "images that are right"
    chart = reliability_chart(_bars(calibration))
    errors = [("calibration error", calibration)] + ([("with the model's scales", scaled)] if scaled else [])
    rows = [
        [Cell(name), *(Cell(f"{one.per_class[label]:.3f}", one.per_class[label]) for _, one in errors)]
        for label, name in enumerate(names)
    ]
    return Section(
        title="Calibration",
        text=text,
        charts=[(caption, chart)] if chart else (),
        remarks=(
            f"A bar is the fraction of {what}, among those with scores inside it; above it, their number. On the "
            "dashed line scores would be what they look like.",
            "Bars below the line: the model is too sure. Above it: it is too modest. Thresholds have to be chosen by "
            "what they do, not by what scores seem to say.",
        ),
        tables=[PageTable(("class", *(name for name, _ in errors)), rows, "Calibration error of classes")],
    )


def _bars(calibration: Calibration) -> list[ReliabilityBar]:
    return [ReliabilityBar(one.lower, one.upper, one.num_detections, one.precision) for one in calibration.bins]
