"""A training run as one HTML file that needs nothing but itself: numbers, curves, images, settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.records import Record
from boxwright.drawing import class_color, draw_comparison, draw_detections, draw_ground_truth, drawing_uri
from boxwright.drawing.comparison import ComparisonForm
from boxwright.files import write_text
from boxwright.reports import charts
from boxwright.reports.page import render_page, require_extra
from boxwright.reports.section import Section
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

_IMAGE_SIDE = 720
"""Longest side of an image in the report, in pixels; smaller ones are upsampled to it, up to four times."""

_OVERLAY_SIDE = 560
"""The same of an image that shows detections and ground truth at once, of which a page may have many."""

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
    """One image to show.

    Args:
        image: RGB, (h, w, 3), uint8.
        record: its objects.
        detections: in its pixels.
        form: ground truth and detections side by side, or in one image with hits, misses and inventions in 3 styles.
        note: on it, in a few words; counts of objects and detections where it is empty.
    """

    image: np.ndarray
    record: Record
    detections: Detections
    form: ComparisonForm = "side_by_side"
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """Facts of a run beside its numbers.

    Args:
        summary: for the top of the page, by name: recipe, data, steps, time.
        notes: lines for the reader on what the numbers do not show.
        recipe: the resolved recipe as YAML.
        passport: origin and history of the weights, in lines.
        environment: versions and threads, by name.
        command: the command that repeats the run.
    """

    summary: Mapping[str, str]
    notes: Sequence[str] = ()
    recipe: str = ""
    passport: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def write_report(
    path: Path,
    *,
    title: str,
    metrics: Mapping[str, Any] | None,
    history: Sequence[Mapping[str, Any]],
    sections: Sequence[Section] = (),
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
            ``Evaluation.to_json(curves=True)`` gives them; None for a classifier.
        history: the run's JSON lines. Drawn over ``step``: ``loss``, ``losses`` by name, ``lr`` (a number, or
            one by group), and ``AP`` and ``AP50``, those in ``segm`` too, with ``weights`` "raw" or "ema" where both
            are evaluated.
        sections: after the numbers of classes, in this order.
        images: shown with ground truth and detections.
        categories: label ``i`` is ``categories[i]``.
        threshold: the lowest score that is drawn.
        facts: beside the numbers.

    Raises:
        ValueError: the libraries of the extra ``report`` are not installed.
    """
    require_extra()
    measured = [] if metrics is None else [("", metrics)]
    if metrics is not None and "segm" in metrics:
        measured = [("Boxes", metrics), ("Masks", metrics["segm"])]
    content = {
        "title": title,
        "tasks": [_task(name, numbers) for name, numbers in measured],
        "curves": _curves(history),
        "sections": sections,
        "images": _image_sections(images, categories, threshold),
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


def _image_sections(
    images: Sequence[ReportImage], categories: Sequence[Category], threshold: float
) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Title, explanation and images of each of the two forms that there is."""
    shown = [show_image(one, categories, threshold) for one in images]
    parts = [
        (
            "Worst images",
            f"Objects that are detected, missed and invented, at scores of at least {threshold:.2f}.",
            True,
        ),
        (
            "Images",
            f"Left: the objects of the data set, dashed. Right: detections with a score of at least {threshold:.2f}.",
            False,
        ),
    ]
    sections = [(title, text, [one for one in shown if one["overlay"] == form]) for title, text, form in parts]
    return [section for section in sections if section[2]]


def show_image(one: ReportImage, categories: Sequence[Category], threshold: float) -> dict[str, Any]:
    """Draw an image as the template takes it, with detections of some score at least."""
    image, record, detections = one.image, one.record, one.detections
    overlay = one.form == "overlay"
    scale = (_OVERLAY_SIDE if overlay else _IMAGE_SIDE) / max(image.shape[:2])
    # Upsampled by whole numbers only, which keeps pixels sharp.
    scale = float(min(int(scale), 4)) if scale > 1 else scale
    num_objects, num_detections = int((~record.crowd).sum()), int((detections.scores >= threshold).sum())
    if overlay:
        drawn = draw_comparison(image, record, detections, categories, threshold=threshold, form="overlay", scale=scale)
        drawings = [("objects that are detected, missed and invented", drawing_uri(drawn, quality=80))]
    else:
        left = draw_ground_truth(image, record, categories, scale=scale, with_masks=detections.masks is not None)
        right = draw_detections(image, detections, categories, threshold=threshold, scale=scale)
        drawings = [("the objects of the data set", drawing_uri(left)), ("the detections", drawing_uri(right))]
    note = one.note or f"{num_objects} objects, {num_detections} detections"
    return {"name": record.path.name, "note": note, "drawings": drawings, "overlay": overlay}


def _css_color(label: int) -> str:
    red, green, blue = class_color(label)
    return f"rgb({red} {green} {blue})"
