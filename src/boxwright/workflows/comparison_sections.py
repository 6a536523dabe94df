"""The page of a comparison: its tables, and images in which one model detects what the other misses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxwright.evaluation.coco_metrics import UNDEFINED
from boxwright.evaluation.comparison import EvaluationComparison, MetricDifference
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.operating_points import thresholds_of
from boxwright.reports.comparison_page import write_comparison_page
from boxwright.reports.page_images import ReportImage
from boxwright.reports.report import ReportFacts
from boxwright.reports.section import Cell, PageTable, Section, count_cell, metric_cell
from boxwright.workflows.compare_result import ComparedModel, CompareResult
from boxwright.workflows.drawn_names import drawn_labels, note_undrawable_names
from boxwright.workflows.machine import describe_machine
from boxwright.workflows.observer import Observer
from boxwright_runtime.detections import Detections

_MOST_IMAGES = 8
"""Images of each comparison that are shown, once for each of both."""

_EXPLANATION = (
    "Difference: second minus first. The interval holds 95 % of the differences of {samples:,} samples of the images, "
    "drawn with replacement, the same ones for both. Where it does not hold 0, the difference is more than the choice "
    "of the images; what another seed of training would change is not in it."
)


def write_comparison(path: Path, result: CompareResult, *, data: str, command: str, observer: Observer) -> None:
    """Write the page of a comparison.

    Args:
        path: of the HTML file.
        result: what is shown.
        data: name of the data, for the head.
        command: that repeats it.
        observer: hears of names that cannot be drawn.
    """
    first, *others = result.models
    sections, images = [_list_models(result.models)], []
    for index, other in enumerate(others):
        titles = f"{other.name} against {first.name}"
        forms = [("boxes", result.boxes[index])] + ([("masks", result.masks[index])] if result.masks else [])
        for form, comparison in forms:
            title = titles if len(forms) == 1 else f"{titles}: {form}"
            sections += _list_differences(title, comparison)
        sections.append(_list_objects(f"{titles}: objects", result.boxes[index]))
        images.append(_list_images(first, other, result.boxes[index]))
    labels = drawn_labels([one for _, _, shown in images for one in shown])
    note_undrawable_names(first.evaluation.data.categories, labels, observer)
    machine = describe_machine()
    write_comparison_page(
        path,
        title=f"{len(result.models)} models compared",
        sections=sections,
        images=images,
        categories=first.evaluation.data.categories,
        facts=ReportFacts(
            summary={"data": data, "images": f"{len(first.evaluation.data.records):,}"},
            notes=tuple(dict.fromkeys(note for one in result.models for note in one.evaluation.notes)),
            environment={"processor": str(machine["processor"]), "cores": str(machine["cores"])},
            command=command,
        ),
    )


def _list_models(models: Sequence[ComparedModel]) -> Section:
    columns = ("model", "AP", "AP50", "AP75", "AP of masks", "parameters", "GMAC", "latency, ms")
    rows = []
    for one in models:
        boxes, masks = one.evaluation.boxes, one.evaluation.masks
        values = [boxes.AP, boxes.AP50, boxes.AP75, UNDEFINED if masks is None else masks.AP]
        costs = [(one.params, "{:,}"), (one.gmac, "{:.2f}"), (one.latency_ms, "{:.1f}")]
        numbers = [Cell("–" if value is None else form.format(value), value) for value, form in costs]
        rows.append([Cell(one.name), *map(metric_cell, values), *numbers])
    text = (
        "GMAC are of prediction of one image. Latency is that of one image of 480 x 640 pixels on this machine's CPU."
    )
    return Section(title="Models", text=text, tables=[PageTable(columns, rows)])


def _list_differences(title: str, comparison: EvaluationComparison) -> list[Section]:
    columns = ("", "first", "second", "difference", "interval", "clear")
    text = _EXPLANATION.format(samples=comparison.num_samples)
    return [
        Section(
            title=title, text=text, tables=[PageTable(columns, [_difference_row(one) for one in comparison.numbers])]
        ),
        Section(
            title=f"{title}: AP of classes",
            tables=[PageTable(columns, [_difference_row(one) for one in comparison.per_class])],
        ),
    ]


def _difference_row(one: MetricDifference) -> list[Cell]:
    difference = Cell("–") if one.value is None else Cell(f"{one.value:+.3f}", one.value)
    interval = Cell("–") if one.lower is None else Cell(f"{one.lower:+.3f} to {one.upper:+.3f}", one.lower)
    clear = Cell("yes" if one.is_clear else "", float(one.is_clear))
    return [Cell(one.name), metric_cell(one.first), metric_cell(one.second), difference, interval, clear]


def _list_objects(title: str, comparison: EvaluationComparison) -> Section:
    objects = comparison.objects
    counts = {
        "both": objects.both,
        "the first alone": objects.only_first,
        "the second alone": objects.only_second,
        "none": objects.neither,
    }
    text = "At IoU 0.5, by detections above the thresholds of the best F1 of each."
    rows = [[Cell(name), count_cell(count)] for name, count in counts.items()]
    return Section(title=title, text=text, tables=[PageTable(("detected by", "objects"), rows)])


def _list_images(
    first: ComparedModel, second: ComparedModel, comparison: EvaluationComparison
) -> tuple[str, str, list[ReportImage]]:
    """Show each image twice: with the detections of the first, and with those of the second."""
    records = {record.image_id: record for record in first.evaluation.data.records}
    shown = []
    for one in comparison.objects.images[:_MOST_IMAGES]:
        record = records[one.image_id]
        try:
            image = record.read()
        except (OSError, ValueError):
            continue  # of results files alone, images need not be there, nor be as large as the annotations say
        for model, alone in ((first, one.only_first), (second, one.only_second)):
            note = f"{model.name}: detects {len(alone)} that the other misses"
            shown.append(ReportImage(image, record, _above(model.evaluation, one.image_id), "overlay", note))
    title = f"Images that {first.name} and {second.name} differ in"
    return title, "Each twice, with detections above the thresholds of the best F1 of each model.", shown


def _above(evaluation: Evaluation, image_id: int) -> Detections:
    return evaluation.detections[image_id].above(thresholds_of(evaluation.thresholds))
