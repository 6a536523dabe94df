"""Tables of metrics in the terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_metrics import ClassMetrics, CocoMetrics
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.tables import evaluation_tables, format_number
from boxwright.structures import Category

METRICS = CocoMetrics(
    *(0.412, 0.755, 0.399, -1.0, 0.387, 0.461, 0.352, 0.501, 0.523, -1.0, 0.49, 0.571),
    per_class=(
        ClassMetrics("cell [red]", 1, 1234, 0.5123, 0.9, -1.0, 0.4, 0.6),
        ClassMetrics("absent", 2, 0, -1.0, -1.0, -1.0, -1.0, -1.0),
    ),
    notes=("Images not predicted, counted as without detections: 1 of 2.",),
)


def rendered(masks: CocoMetrics | None = None) -> list[list[str]]:
    printed = io.StringIO()
    console = Console(file=printed, width=100)
    data = DetectionData((), tuple(Category(row.category_id, row.name) for row in METRICS.per_class), Path())
    console.print(evaluation_tables(Evaluation(data, {}, METRICS, masks)))
    lines = printed.getvalue().splitlines()
    return [line.replace("│", " ").split() for line in lines]


def test_the_12_numbers() -> None:
    lines = rendered()
    assert lines[0] == ["AP", "AP50", "AP75", "APs", "APm", "APl"]
    assert lines[1] == ["0.412", "0.755", "0.399", "–", "0.387", "0.461"]
    assert lines[3] == ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    assert lines[4] == ["0.352", "0.501", "0.523", "–", "0.490", "0.571"]


def test_a_row_per_class_with_its_name_as_it_is() -> None:
    lines = rendered()
    assert ["cell", "[red]", "1,234", "0.512", "0.900", "–", "0.400", "0.600"] in lines
    assert ["absent", "0", "–", "–", "–", "–", "–"] in lines


def test_notes_follow() -> None:
    assert " ".join(rendered()[-1]) == f"Note: {METRICS.notes[0]}"


def test_boxes_then_masks_and_each_note_once() -> None:
    masks = replace(METRICS, AP=0.321, notes=(*METRICS.notes, "Of masks alone."))
    lines = rendered(masks)
    assert lines[0] == ["boxes"]
    assert lines.index(["masks"]) > lines.index(["0.412", "0.755", "0.399", "–", "0.387", "0.461"])
    assert lines.index(["masks"]) < lines.index(["0.321", "0.755", "0.399", "–", "0.387", "0.461"])
    assert [" ".join(line) for line in lines[-2:]] == [f"Note: {METRICS.notes[0]}", "Note: Of masks alone."]


def test_zero_is_a_number() -> None:
    assert format_number(0.0) == "0.000"
    assert format_number(-1.0) == "–"
