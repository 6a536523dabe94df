"""The metrics of a line, and the one that decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def summary_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Pick the numbers of a line by name: top-1 and top-5, or AP and AP50, and those of masks where there are any."""
    if "top1" in metrics:
        return {"top-1": metrics["top1"], "top-5": metrics["top5"]}
    numbers = {"AP": metrics["AP"], "AP50": metrics["AP50"]}
    if "segm" in metrics:
        numbers |= {"mask AP": metrics["segm"]["AP"], "mask AP50": metrics["segm"]["AP50"]}
    return numbers


def primary_metric(metrics: Mapping[str, Any]) -> tuple[str, float]:
    """Return name and value of the metric that decides about the best weights, after the detector's task."""
    numbers = summary_metrics(metrics)
    name = next(name for name in ("top-1", "mask AP", "AP") if name in numbers)
    return name, numbers[name]
