"""Charts of scores: how often detections of a score are right, and F1 over thresholds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from boxwright.reports.svg_chart import draw_svg, legend_name, line_color


class ReliabilityBar(NamedTuple):
    """Detections with scores from ``lower`` to ``upper``: their number, and the fraction that is right."""

    lower: float
    upper: float
    num_detections: int
    precision: float


def reliability_chart(bars: Sequence[ReliabilityBar]) -> str:
    """Draw the fraction of right detections over their score, beside the line on which both are equal.

    Args:
        bars: of all scores, in order; those without detections are left out.
    """
    shown = [one for one in bars if one.num_detections]

    def plot(axes: Any) -> None:
        axes.bar(
            [one.lower for one in shown],
            [one.precision for one in shown],
            width=[0.94 * (one.upper - one.lower) for one in shown],
            align="edge",
            color=line_color(0),
            alpha=0.45,
        )
        axes.plot([0, 1], [0, 1], "--", color=line_color(1), linewidth=1.4)
        for one in shown:
            axes.annotate(
                f"{one.num_detections:,}",
                ((one.lower + one.upper) / 2, one.precision),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.08)

    return draw_svg("reliability", plot, "score", "fraction that is right") if shown else ""


def f1_chart(thresholds: Sequence[float], named: Sequence[tuple[int, str, Sequence[float]]]) -> str:
    """Draw F1 over the threshold of scores; empty without any class.

    Args:
        thresholds: rising.
        named: label and name of a class, and its F1 from each threshold on.
    """

    def plot(axes: Any) -> None:
        for label, name, values in named:
            axes.plot(thresholds, values, color=line_color(label), label=legend_name(name))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)

    return draw_svg("f1", plot, "threshold", "F1") if named else ""
