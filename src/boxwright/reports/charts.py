"""Charts of a page: the log of training, precision over recall, and numbers of several runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from boxwright.reports.svg_chart import draw_svg, legend_name, line_color

Rows = Sequence[Mapping[str, Any]]

_NUM_POINTS = 600
"""Points of a line; more than a page shows are averaged."""

_NUM_LINES = 8
"""Lines in one chart that readers still tell apart."""


class Line(NamedTuple):
    """One line of a chart; ``steps`` and ``values`` have one entry per point."""

    name: str
    steps: list[float]
    values: list[float]


def loss_chart(history: Rows) -> str:
    """Draw the training loss, as it was and smoothed; empty where the history has none."""
    lines = _lines(("loss", row, row.get("loss")) for row in history)
    if not lines:
        return ""
    steps, values = _thin(lines[0])
    smooth = _smooth(values)

    def plot(axes: Any) -> None:
        axes.plot(steps, values, color=line_color(0), alpha=0.4, linewidth=1, label="as it was")
        axes.plot(steps, smooth, color=line_color(0), label="smoothed")
        axes.set_ylim(bottom=0)
        # The first steps of a training are often far above the rest, and would flatten it.
        axes.set_ylim(top=1.1 * max(*np.percentile(values, [99]), smooth.max()))

    return draw_svg("loss", plot, "step", "loss")


def terms_chart(history: Rows) -> str:
    """Draw the largest terms of the loss, smoothed; empty where the history does not have them."""
    lines = _lines(
        (name, row, value)
        for row in history
        if isinstance(row.get("losses"), Mapping)
        for name, value in row["losses"].items()
    )
    lines = sorted(lines, key=lambda line: -float(np.mean(line.values)))[:_NUM_LINES]

    def plot(axes: Any) -> None:
        for index, line in enumerate(lines):
            steps, values = _thin(line)
            axes.plot(steps, _smooth(values), color=line_color(index), label=line.name)
        axes.set_ylim(bottom=0)

    return draw_svg("terms", plot, "step", "loss term") if lines else ""


def ap_chart(history: Rows) -> str:
    """Draw AP and AP50 of every evaluation, of masks too where there are any; empty where the history has none.

    ``weights`` of a row is "ema" for the moving average and "raw" for the trained weights themselves.
    """
    names = ("AP", "AP50", "mask AP", "mask AP50")
    lines = _lines(
        (f"{name} {row['weights']}" if row.get("weights") else name, row, values.get(name.removeprefix("mask ")))
        for row in history
        for name in names
        if isinstance(values := row.get("segm") if name.startswith("mask") else row, Mapping)
    )

    def plot(axes: Any) -> None:
        for line in lines:
            color = line_color(names.index(line.name.removesuffix(" raw").removesuffix(" ema")))
            style = "--" if line.name.endswith("raw") else "-"
            axes.plot(line.steps, line.values, style, color=color, marker="o", markersize=3.5, label=line.name)
        axes.set_ylim(0, 1)

    return draw_svg("ap", plot, "step", "average precision") if lines else ""


def rate_chart(history: Rows) -> str:
    """Draw the learning rate, of each group of parameters where there are several; empty without any."""
    rates = ((row, row.get("lr")) for row in history)
    groups = ((row, lr if isinstance(lr, Mapping) else {"rate": lr}) for row, lr in rates)
    lines = _lines((name, row, value) for row, lr in groups for name, value in lr.items())[:_NUM_LINES]

    def plot(axes: Any) -> None:
        for index, line in enumerate(lines):
            axes.plot(*_thin(line), color=line_color(index), label=line.name)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))

    return draw_svg("rate", plot, "step", "learning rate") if lines else ""


def precision_recall_chart(rows: Rows, *, name: str = "precision-recall") -> str:
    """Draw precision over recall at IoU 0.5 of the classes with most objects; empty where no class has any.

    ``name`` is another for every such chart of a page.
    """
    shown = [(label, row) for label, row in enumerate(rows) if row.get("precision50")]
    shown = sorted(shown, key=lambda entry: -entry[1]["num_objects"])[:_NUM_LINES]
    recall = np.linspace(0, 1, 101)

    def plot(axes: Any) -> None:
        for label, row in sorted(shown, key=lambda entry: entry[0]):
            axes.plot(recall, row["precision50"], color=line_color(label), label=legend_name(row["name"]))
        axes.set_xlim(0, 1.01)
        axes.set_ylim(0, 1.02)

    return draw_svg(name, plot, "recall", "precision") if shown else ""


def curves_chart(named: Sequence[tuple[str, Sequence[tuple[Sequence[float], Sequence[float]]]]], y_label: str) -> str:
    """Draw a number over the steps, means over several runs of each name; empty without any.

    Args:
        named: a name, and of each of its runs the steps and the values.
        y_label: what the number is.
    """
    named = [(name, runs) for name, runs in named if runs]

    def plot(axes: Any) -> None:
        for index, (name, runs) in enumerate(named):
            by_step: dict[float, list[float]] = {}
            for steps, values in runs:
                for step, value in zip(steps, values, strict=True):
                    by_step.setdefault(step, []).append(value)
            # Where only some of the runs have a value, a mean would jump.
            whole = sorted((step, np.mean(own)) for step, own in by_step.items() if len(own) == len(runs))
            axes.plot(
                *zip(*whole, strict=True), color=line_color(index), marker="o", markersize=3.5, label=legend_name(name)
            )
        axes.set_ylim(bottom=0)

    return draw_svg("curves", plot, "step", y_label) if named else ""


def lines_chart(x: Sequence[float], named: Sequence[tuple[str, Sequence[float]]], x_label: str, y_label: str) -> str:
    """Draw lines over common points.

    Args:
        x: the points.
        named: a name, and the values of its line.
        x_label: what the points are.
        y_label: what the values are.
    """

    def plot(axes: Any) -> None:
        for index, (name, values) in enumerate(named):
            axes.plot(x, values, color=line_color(index), label=legend_name(name))
        axes.set_ylim(bottom=0)

    return draw_svg("lines", plot, x_label, y_label)


def spread_chart(named: Sequence[tuple[str, Sequence[float]]], y_label: str) -> str:
    """Draw the number of each run as a dot, and the mean of each name as a bar; empty without any.

    Args:
        named: a name, and the number of each of its runs.
        y_label: what the number is.
    """
    named = [(name, values) for name, values in named if values]

    def plot(axes: Any) -> None:
        for index, (_, values) in enumerate(named):
            axes.bar(index, np.mean(values), width=0.6, color=line_color(index), alpha=0.35)
            axes.scatter([index] * len(values), values, color=line_color(index), s=18, zorder=3)
        axes.set_xticks(
            range(len(named)), [legend_name(name) for name, _ in named], rotation=0 if len(named) < 8 else 30
        )
        axes.set_ylim(bottom=0)

    return draw_svg("spread", plot, "variation", y_label) if named else ""


def _lines(points: Iterable[tuple[str, Mapping[str, Any], Any]]) -> list[Line]:
    """Points of (name, row, value), those without a number left out, as one line per name as they appear."""
    lines: dict[str, Line] = {}
    for name, row, value in points:
        if _is_number(row.get("step")) and _is_number(value):
            line = lines.setdefault(name, Line(name, [], []))
            line.steps.append(row["step"])
            line.values.append(value)
    return list(lines.values())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _thin(line: Line) -> tuple[np.ndarray, np.ndarray]:
    chunks = min(len(line.steps), _NUM_POINTS)
    steps, values = (np.array_split(np.asarray(x, dtype=float), chunks) for x in (line.steps, line.values))
    return np.array([x.mean() for x in steps]), np.array([x.mean() for x in values])


def _smooth(values: np.ndarray) -> np.ndarray:
    """Average over a window around each point, cut off at the ends."""
    half = len(values) // 40
    total = np.concatenate([[0.0], values.cumsum()])
    index = np.arange(len(values))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    smooth: np.ndarray = (total[last] - total[first]) / (last - first)
    return smooth
