"""A training run as one HTML file that needs nothing but itself: numbers, curves, images, settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.records import Record
from boxwright.drawing import class_color, draw_detections, draw_ground_truth, drawing_uri
from boxwright.files import write_text
from boxwright.reports import charts
from boxwright.reports.page import render_page, require_extra
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

_IMAGE_SIDE = 720
"""Longest side of an image in the report, in pixels; smaller ones are upsampled to it, up to four times."""

_MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small objects, below 32² pixels",
    "APm": "medium objects, 32² to 96²",
    "APl": "large objects, above 96²",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}
_RECALL = re.compile(r"AR(\d+)")
"""Names of numbers that say how many detections per image and class were counted."""


class ReportImage(NamedTuple):
    """One image to show: ``image`` is RGB, (h, w, 3), uint8, and the detections are in its pixels."""

    image: np.ndarray
    record: Record
    detections: Detections


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Facts of a run beside its numbers.

    Args:
        summary: for the top of the page, by name: recipe, data, steps, time.
        notes: lines for the reader on what the numbers do not show.
        recipe: the resolved recipe as YAML.
        environment: versions and threads, by name.
        command: the command that repeats the run.
    """

    summary: Mapping[str, str]
    notes: Sequence[str] = ()
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write_report(
    path: Path,
    *,
    title: str,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    images: Sequence[ReportImage],
    categories: Sequence[Category],
    threshold: float,
    facts: ReportFacts,
) -> None:
    """Write a report of a run.

    Args:
        path: of the HTML file. Its folder is made; an older report is replaced once this one is complete.
        title: of the page.
        metrics: the 12 numbers and ``per_class``, and those of masks under ``segm`` where there are any, as
            ``Evaluation.to_json(curves=True)`` gives them.
        history: the run's JSON lines. Drawn over ``step``: ``loss``, ``losses`` by name, ``lr`` (a number, or
            one by group), and ``AP`` and ``AP50``, those in ``segm`` too, with ``weights`` "raw" or "ema" where both
            are evaluated.
        images: shown with ground truth and detections side by side.
        categories: label ``i`` is ``categories[i]``.
        threshold: the lowest score that is drawn.
        facts: beside the numbers.

    Raises:
        ValueError: the libraries of the extra ``report`` are not installed.
    """
    require_extra()
    measured = [("Boxes", metrics), ("Masks", metrics["segm"])] if "segm" in metrics else [("", metrics)]
    content = {
        "title": title,
        "tasks": [_task(name, numbers) for name, numbers in measured],
        "curves": _curves(history),
        "images": [_show(one, categories, threshold) for one in images],
        "threshold": threshold,
    }
    write_text(path, render_page("report_template.html", {**content, **vars(facts)}))


def _task(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Content of the page on the metrics of boxes, or of masks; the name is empty where there are boxes only."""
    rows = metrics["per_class"]
    recalls = {int(match[1]): match[0] for match in map(_RECALL.fullmatch, metrics) if match}
    meanings = _MEANINGS | {number: f"recall, {count} per class" for count, number in recalls.items()}
    summary = ["AP", "AP50", "AP75", recalls[max(recalls)]]
    return {
        "name": name,
        "summary": [(number, meanings[number], metrics[number]) for number in summary],
        "numbers": [(number, meanings[number], value) for number, value in metrics.items() if number in meanings],
        "per_class": [{**row, "color": _css_color(label)} for label, row in enumerate(rows)],
        "precision_recall": charts.precision_recall_chart(rows, name=f"precision-recall-{name.lower()}".rstrip("-")),
    }


def _curves(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Caption and SVG of each chart that the history has data for."""
    drawn = [
        ("Training loss", charts.loss_chart(history)),
        ("Average precision on the validation data", charts.ap_chart(history)),
        ("Largest terms of the loss", charts.terms_chart(history)),
        ("Learning rate", charts.rate_chart(history)),
    ]
    return [(caption, svg) for caption, svg in drawn if svg]


def _show(one: ReportImage, categories: Sequence[Category], threshold: float) -> dict[str, Any]:
    image, record, detections = one
    scale = _IMAGE_SIDE / max(image.shape[:2])
    # Upsampled by whole numbers only, which keeps pixels sharp.
    scale = float(min(int(scale), 4)) if scale > 1 else scale
    return {
        "name": record.path.name,
        "num_objects": int((~record.crowd).sum()),
        "num_detections": int((detections.scores >= threshold).sum()),
        "ground_truth": drawing_uri(
            draw_ground_truth(image, record, categories, scale=scale, with_masks=detections.masks is not None)
        ),
        "detections": drawing_uri(draw_detections(image, detections, categories, threshold=threshold, scale=scale)),
    }


def _css_color(label: int) -> str:
    red, green, blue = class_color(label)
    return f"rgb({red} {green} {blue})"
