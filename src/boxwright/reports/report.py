"""A model as one HTML file that needs nothing but itself: numbers, errors, curves, images, settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boxwright.files import write_text
from boxwright.reports import charts
from boxwright.reports.page import render_page, require_extra
from boxwright.reports.page_images import ReportImage, show_images
from boxwright.reports.section import Cell, PageTable, Section, count_cell, metric_cell
from boxwright.reports.svg_chart import line_color
from boxwright.structures import Category

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
    "top1": "the likeliest class is right",
    "top5": "the right class is among the five likeliest",
}
_RECALL = re.compile(r"AR(\d+)")
"""Names of numbers that say how many detections per image and class were counted."""

_CLASS_NUMBERS = ("AP", "AP50", "AP75", "AR", "APs", "APm", "APl")


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
    causes: Sequence[str] = (),
    sections: Sequence[Section] = (),
    data_sections: Sequence[Section] = (),
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
            ``Evaluation.to_json(curves=True)`` gives them; ``top1`` and ``top5`` of a classifier; or None.
        history: the run's JSON lines. Drawn over ``step``: ``loss``, ``losses`` by name, ``lr`` (a number, or
            one by group), and ``AP`` and ``AP50``, those in ``segm`` too, with ``weights`` "raw" or "ema" where both
            are evaluated.
        causes: the largest causes of lost precision, in words.
        sections: after the numbers of classes, in this order.
        data_sections: after the images and the curves of training.
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
    shown = [Section(title="Where precision is lost", items=causes)] if causes else []
    for name, numbers in measured:
        shown += _class_sections(name, numbers) if "per_class" in numbers and "AP" in numbers else []
    shown += [*sections, *_image_sections(images, categories, threshold), *_training_sections(history), *data_sections]
    tasks = [_task(name, numbers) for name, numbers in measured]
    content = {"title": title, "tasks": tasks, "sections": shown}
    write_text(path, render_page("report_template.html", {**content, **vars(facts)}))


def _task(name: str, metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Tiles and numbers of boxes, of masks, or of a classifier; the name is empty where there is one kind only."""
    recalls = {int(match[1]): match[0] for match in map(_RECALL.fullmatch, metrics) if match}
    meanings = _MEANINGS | {number: f"recall, {count} per class" for count, number in recalls.items()}
    numbers = [(number, meanings[number], value) for number, value in metrics.items() if number in meanings]
    summary = ["AP", "AP50", "AP75", recalls[max(recalls)]] if recalls else []
    return {
        "name": name,
        "summary": [(number, meanings[number], metrics[number]) for number in summary] or numbers,
        "numbers": numbers if summary else [],
    }


def _class_sections(name: str, metrics: Mapping[str, Any]) -> list[Section]:
    rows = metrics["per_class"]
    chart = charts.precision_recall_chart(rows, name=f"precision-recall-{name.lower()}".rstrip("-"))
    title = f": {name.lower()}" if name else ""
    sections = [
        Section(
            title=f"Classes{title}",
            text="A dash stands where the data has no object of that class and size.",
            tables=[
                PageTable(("class", "objects", *_CLASS_NUMBERS), [_class_row(*entry) for entry in enumerate(rows)])
            ],
        )
    ]
    if chart:
        sections.append(
            Section(
                title=f"Precision over recall{title}",
                charts=[("At IoU 0.50, of the classes with most objects, at most eight", chart)],
                remarks=_PRECISION_RECALL,
            )
        )
    return sections


_PRECISION_RECALL = (
    "From left to right the score that a detection needs falls: more objects are detected (recall), and more "
    "detections are wrong (precision).",
    "A curve that drops to zero early shows objects that are not detected at any score. One that sinks from the start "
    "shows wrong detections with high scores: doubles, background, or other classes.",
    "AP50 of a class is the area under its curve.",
)


def _class_row(label: int, row: Mapping[str, Any]) -> list[Cell]:
    numbers = [metric_cell(row.get(number, -1.0)) for number in _CLASS_NUMBERS]
    return [Cell(row["name"], color=line_color(label)), count_cell(row["num_objects"]), *numbers]


def _training_sections(history: Sequence[Mapping[str, Any]]) -> list[Section]:
    drawn = [
        ("Training loss", charts.loss_chart(history)),
        ("Average precision on the validation data", charts.ap_chart(history)),
        ("Largest terms of the loss", charts.terms_chart(history)),
        ("Learning rate", charts.rate_chart(history)),
    ]
    shown = [(caption, svg) for caption, svg in drawn if svg]
    return [Section(title="Training", charts=shown)] if shown else []


def _image_sections(images: Sequence[ReportImage], categories: Sequence[Category], threshold: float) -> list[Section]:
    """Make a section of each of the forms that images have."""
    parts = [
        (
            "Worst images",
            f"Objects that are detected, missed and invented, at scores of at least {threshold:.2f}.",
            "overlay",
        ),
        ("Worst images", "Those whose class is wrong with the highest score.", None),
        (
            "Images",
            f"Left: the objects of the data set, dashed. Right: detections with a score of at least {threshold:.2f}.",
            "side_by_side",
        ),
    ]
    sections = []
    for title, text, form in parts:
        if own := [one for one in images if one.form == form]:
            shown = show_images(own, categories, threshold, num_images=len(images))
            sections.append(Section(title=title, text=text, images=shown))
    return sections
