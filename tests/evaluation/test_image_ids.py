"""Image ids of any size, areas below zero, and data without anything to count."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.data.open import open_data
from boxwright.data.records import DetectionData, object_columns, take_records
from boxwright.evaluation.coco_metrics import evaluate_detections
from boxwright.evaluation.limits import note_nothing_to_count
from boxwright_runtime.detections import Detections

IDS = {
    "above 2^53": (2**53 + 1, 2**53 + 2, 2**53 + 3),
    "above 2^63": (2**63 + 5, 2**63 + 6, 2**64),
    "negative": (-7, -8, 0),
    "all": (2**63 + 5, -7, 9007199254740993),
}


def open_set(folder: Path, ids: tuple[int, ...], *, area: float = 1, iscrowd: int = 0) -> DetectionData:
    (folder / "annotations").mkdir()
    (folder / "images").mkdir()
    boxes = [[5, 5, 20, 30], [40, 40, 50, 20], [1, 2, 90, 91]]
    document = {
        "images": [{"id": one, "file_name": f"{number}.png"} for number, one in enumerate(ids)],
        "categories": [{"id": 2**62, "name": "a"}, {"id": 3, "name": "b"}],
        "annotations": [
            {
                "id": 2**65 + 2 * number + at,
                "image_id": one,
                "category_id": (3, 2**62)[(number + at) % 2],
                "bbox": boxes[(number + at) % 3],
                "area": area * boxes[(number + at) % 3][2] * boxes[(number + at) % 3][3],
                "iscrowd": iscrowd,
            }
            for number, one in enumerate(ids)
            for at in range(2)
        ],
    }
    for number in range(len(ids)):
        Image.new("RGB", (100, 100)).save(folder / "images" / f"{number}.png")
    (folder / "annotations" / "val.json").write_text(json.dumps(document))
    return open_data(folder, "val")


def as_detections(data: DetectionData) -> dict[int, Detections]:
    return {
        record.image_id: Detections(
            boxes=torch.from_numpy(record.boxes()),
            scores=torch.ones(len(record.labels)),
            labels=torch.from_numpy(record.labels),
        )
        for record in data.records
    }


@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
def test_ground_truth_given_as_detections_has_ap_1(tmp_path: Path, ids: tuple[int, ...]) -> None:
    data = open_set(tmp_path, ids)
    assert tuple(record.image_id for record in data.records) == ids
    metrics = evaluate_detections(data, as_detections(data))
    assert metrics.AP == metrics.AR100 == 1


def test_an_area_below_zero_counts_by_its_size(tmp_path: Path) -> None:
    data = open_set(tmp_path, (1, 2, 3), area=-1)
    metrics = evaluate_detections(data, as_detections(data))
    assert (metrics.AP, metrics.APs, metrics.APm) == (1, 1, 1)
    assert [finding.kind.name for finding in data.findings] == ["area_by_size"] * 6


def test_nothing_to_count_is_said(tmp_path: Path) -> None:
    data = open_set(tmp_path, (1, 2, 3), iscrowd=1)
    assert note_nothing_to_count(data, "val") == (
        f"{data.source}: no countable object in val: AP cannot be measured; its 6 annotations are crowd regions "
        "(iscrowd 1), which do not count"
    )
    empty = DetectionData(take_records(data.records, np.arange(0)), data.categories, data.source)
    assert note_nothing_to_count(empty, "val") == f"{data.source}: no countable object in val: AP cannot be measured"


def test_columns_of_selected_records_are_those_of_the_records(tmp_path: Path) -> None:
    records = open_set(tmp_path, (4, 5, 6)).records
    indices = np.array([2, 0, 2])
    packed, plain = take_records(records, indices), take_records(tuple(records), indices)
    for one, two in zip(object_columns(packed), object_columns(plain), strict=True):
        assert one.tolist() == two.tolist()
    assert [record.image_id for record in packed[1:]] == [4, 6]
    assert note_nothing_to_count(open_data(tmp_path, "val"), "val") is None
