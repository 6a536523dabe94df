"""Sections of a report on its data: numbers, sizes, and what a check of it finds."""

from __future__ import annotations

import numpy as np

from boxwright.data.doctor.examine import examine_split
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.doctor.repeated_images import find_repeated_images
from boxwright.data.records import DetectionData
from boxwright.reports.section import Cell, PageTable, Section, count_cell
from boxwright.reports.size_charts import size_charts
from boxwright.structures import Task
from boxwright.workflows.check_report import SplitFinding, group_by_kind

_NAMED = 3
"""Findings of a kind that are named."""


def data_sections(data: DetectionData, split: str, task: Task, *, with_masks: bool = False) -> list[Section]:
    """Describe a split as `boxwright check` does; no image is decoded for it.

    Args:
        data: the split, as it was read.
        split: name of it.
        task: of the model.
        with_masks: masks are looked at too.
    """
    table = ObjectTable.of(data)
    findings = [*data.findings, *examine_split(table, split, task=task, masks=with_masks)]
    located = [SplitFinding(split, one) for one in findings]
    located += [SplitFinding(*one) for one in find_repeated_images({split: data}, {split: table}, near=False)]
    rows = []
    for kind, members in group_by_kind(located).items():
        named = "; ".join(str(one.finding) for one in members[:_NAMED]) + "; …" * (len(members) > _NAMED)
        rows.append([Cell(kind.severity), count_cell(len(members)), Cell(kind.text), Cell(named), Cell(kind.advice)])
    columns = ("severity", "number", "of", "the first", "what to do")
    return [
        Section(
            title="Data",
            text="Of the split that was measured. `boxwright check` looks at the pixels and at the other splits too."
            if rows
            else "Nothing to mend in the annotations of this split. `boxwright check` looks at the pixels and at the "
            "other splits too.",
            facts=_facts(table, is_of_objects=task == "detection"),
            tables=[PageTable(columns, rows)] if rows else (),
            charts=size_charts([table]) if task == "detection" else (),
        )
    ]


def _facts(table: ObjectTable, *, is_of_objects: bool) -> dict[str, str]:
    images, crowds = len(table.records), int(table.crowd.sum())
    longest = table.sizes.max(1, initial=0)
    facts = {"images": f"{images:,}", "classes": f"{len(table.class_names):,}"}
    if is_of_objects:
        per_image = np.bincount(table.image_index[~table.crowd], minlength=images)
        sides = np.sqrt(table.box_area.clip(min=0))
        facts |= {
            "objects": f"{len(table) - crowds:,}" + (f", and {crowds:,} crowd regions" if crowds else ""),
            "images without objects": f"{int((per_image == 0).sum()):,}",
            "objects in an image": _describe(per_image),
            "size of objects": f"{_describe(sides)} pixels (root of the box's area)",
        }
    return facts | {"longer side of images": f"{_describe(longest)} pixels"}


def _describe(values: np.ndarray) -> str:
    if not len(values):
        return "–"
    low, high = values.min(), values.max()
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}, median {np.median(values):.0f}"
