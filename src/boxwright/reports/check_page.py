"""A check of a data set as one HTML file that needs nothing but itself: counts, findings with their images, sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.joined_objects import restore_objects, select_objects
from boxwright.data.records import DetectionData, Record
from boxwright.drawing import draw_ground_truth, drawing_uri
from boxwright.reports.page import render_page
from boxwright.reports.section import Cell, PageTable, Section, count_cell
from boxwright.reports.size_charts import size_charts

DRAWN = 3
"""Findings of a kind whose images are shown."""

DRAWN_PREDICTIONS = 12
"""The same of a kind whose findings have predictions, which have to be looked at one by one."""

_IMAGE_SIDE = 420
_ANNOTATION = re.compile(r"annotation (-?\d+)")
"""Names of objects in the details of findings."""


class KindSection(NamedTuple):
    """The findings of a kind, each with its split; the split is empty where it is about several."""

    kind: FindingKind
    findings: Sequence[tuple[str, Finding]]


class Prediction(NamedTuple):
    """An object that a model sees: the name of its class, its corners in pixels of the image, and its score."""

    class_name: str
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, kw_only=True)
class CheckFacts:
    """Content of the page.

    Args:
        title: of the page.
        verdict: in a line.
        counts: of each split, by name: images, objects and so on.
        kinds: the findings, the worst first.
        parts: lines of further parts of the check, by their titles.
        predicted: what a model sees where a finding is.
    """

    title: str
    verdict: str
    counts: Mapping[str, Mapping[str, int]]
    kinds: Sequence[KindSection]
    parts: Mapping[str, Sequence[str]]
    predicted: Mapping[Finding, Prediction] = field(default_factory=dict)


def render_check(facts: CheckFacts, splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable]) -> str:
    """Render the page; the images of the first findings of each kind are read and drawn.

    Args:
        facts: beside the data.
        splits: that could be read.
        objects: of each split.
    """
    names = list(next(iter(facts.counts.values()), {}))
    rows = [
        [Cell(split), *(count_cell(number) for number in numbers.values())] for split, numbers in facts.counts.items()
    ]
    content = {
        "title": facts.title,
        "summary": {},
        "facts": facts,
        "splits": Section(title="Splits", tables=[PageTable(("split", *names), rows)]),
        "findings": [_section(one, facts.predicted, splits, objects) for one in facts.kinds],
        "sections": [
            Section(title="Sizes", charts=size_charts(list(objects.values()))),
            Section(title="Classes", tables=[_class_table(objects)]),
        ],
    }
    return render_page("check_template.html", content)


def _class_table(objects: Mapping[str, ObjectTable]) -> PageTable:
    """Count the objects of each class in each split, the frequent classes first."""
    counts: dict[str, dict[str, int]] = {}
    for split, table in objects.items():
        numbers = np.bincount(table.labels[~table.crowd], minlength=len(table.class_names)).tolist()
        for name, number in zip(table.class_names, numbers, strict=True):
            counts.setdefault(name, dict.fromkeys(objects, 0))[split] = number
    totals = {name: sum(numbers.values()) for name, numbers in counts.items()}
    most = max(totals.values(), default=0) or 1
    rows = [
        [
            Cell(name),
            *(count_cell(number) for number in counts[name].values()),
            Cell(f"{totals[name]:,}", totals[name], totals[name] / most),
        ]
        for name in sorted(counts, key=lambda name: -totals[name])
    ]
    return PageTable(("class", *objects, "objects"), rows)


def _section(
    section: KindSection,
    predicted: Mapping[Finding, Prediction],
    splits: Mapping[str, DetectionData],
    objects: Mapping[str, ObjectTable],
) -> dict[str, Any]:
    images: list[dict[str, str]] = []
    most = DRAWN_PREDICTIONS if any(finding in predicted for _, finding in section.findings) else DRAWN
    for split, finding in section.findings:
        if len(images) == most:
            break
        record = _find_record(finding.subject, split, objects)
        drawn = None if record is None else _draw(record, finding, predicted.get(finding), splits[split])
        if drawn is not None:
            images.append({"name": f"{split}: {finding}", "uri": drawn})
    rows = [(split, finding.subject, finding.detail) for split, finding in section.findings]
    return {"kind": section.kind, "rows": rows, "images": images}


def _find_record(place_name: str, split: str, objects: Mapping[str, ObjectTable]) -> Record | None:
    """Find the image of a finding; readers and checks name it from different folders on."""
    if split not in objects:
        return None
    table = objects[split]
    for index, name in enumerate(table.names):
        if name == place_name or name.endswith(f"/{place_name}") or place_name.endswith(f"/{name}"):
            return table.records[index]
    return None


def _draw(record: Record, finding: Finding, prediction: Prediction | None, data: DetectionData) -> str | None:
    """Draw the objects that a finding names, and the predicted one, or all; None where the image cannot be read."""
    try:
        image = record.read()
    except (OSError, ValueError):
        return None
    named = {int(number) for number in _ANNOTATION.findall(finding.detail)}
    if named:  # what was dropped on reading is drawn where it is named
        record = restore_objects(record, data)
    rows = [index for index, number in enumerate(record.annotation_ids) if int(number) in named]
    # Drawn as boxes, as a mask may be broken.
    shown = record
    if rows or prediction is not None:
        shown = select_objects(replace(record, segmentations=()), rows)
    predictions = [] if prediction is None else [prediction]
    scale = _IMAGE_SIDE / max(image.shape[:2])
    scale = float(min(int(scale), 8)) if scale > 1 else scale
    drawing = draw_ground_truth(
        image, shown, data.categories, scale=scale, with_masks=bool(rows), predictions=predictions
    )
    return drawing_uri(drawing, quality=80)
