"""AP against latency, as a chart in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from boxwright.files import replace_file

FORMATS = (".svg", ".png", ".pdf")
"""Ends of the names of charts."""


class LatencyPoint(NamedTuple):
    """One point: a name, milliseconds of a batch, and AP in [0, 1]."""

    name: str
    milliseconds: float
    ap: float


def check_chart_target(path: Path) -> None:
    """Make sure that a chart can be drawn and written in the format that a name ends with.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: another format.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: charts are written as {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("matplotlib is not installed: pip install 'boxwright[report]'") from error


def plot_latency(points: Sequence[LatencyPoint], path: Path) -> None:
    """Draw AP, in percent, over latency, and write it as SVG, PNG or PDF.

    Args:
        points: at least one.
        path: of the file.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not points:
        raise ValueError(f"{path}: there is no point to draw")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    try:
        for name, milliseconds, ap in points:
            (dot,) = axes.plot(milliseconds, 100 * ap, "o")
            axes.annotate(
                name, (milliseconds, 100 * ap), textcoords="offset points", xytext=(6, 4), color=dot.get_color()
            )
        axes.set_xlabel("latency of a batch (ms)")
        axes.set_ylabel("AP (%)")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        replace_file(path, lambda file: figure.savefig(file, format=path.suffix[1:].lower()))
    finally:
        pyplot.close(figure)
