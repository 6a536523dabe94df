"""An evaluation that several processes share has the numbers of one."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from partition_cases import ThreadGroup, family_run

from boxwright.data.loading.loader import eval_loader
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.evaluation import processes
from boxwright.training.distributed import Rank
from boxwright.workflows import validation
from boxwright.workflows.validation import Validation
from boxwright_runtime.detections import Detections

Measured = list[dict[int, Detections]]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Fills up with the detections of which metrics are computed."""
    seen: Measured = []
    measure = validation.measure_detections

    def record(data: DetectionData, detections: dict[int, Detections], **options: Any) -> Any:
        seen.append(detections)
        return measure(data, detections, **options)

    monkeypatch.setattr(validation, "measure_detections", record)
    return seen


def make_detector(head: str, data: DetectionData, folder: Path) -> Detector:
    return family_run(head, data, folder).detector.float().train()


def assert_same(actual: dict[int, Detections], expected: dict[int, Detections]) -> None:
    assert list(actual) == list(expected)
    for image_id, one in expected.items():
        other = actual[image_id]
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(other, name), getattr(one, name)), image_id
        assert other.masks == one.masks


@pytest.mark.parametrize(("head", "world_size"), [("mask_rcnn", 2), ("mask_rcnn", 12), ("retinanet", 3)])
def test_shared_numbers_are_those_of_one_process(
    head: str,
    world_size: int,
    data: DetectionData,
    tmp_path: Path,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit by bit, in the same order, with masks, also where there are more processes than batches."""
    detector, validate = make_detector(head, data, tmp_path), Validation(data, batch_size=2)
    expected = validate(detector)
    group = ThreadGroup(world_size)
    monkeypatch.setattr(processes, "dist", group)
    # Norms that are not synchronized have other statistics in every process; the first one's are stored.
    others = [detector, *(deepcopy(detector) for _ in range(world_size - 1))]
    for other in others[1:]:
        for name, buffer in other.named_buffers():
            if "running_mean" in name:
                buffer.add_(1.0)
    numbers = group.run(lambda rank: validate(others[rank.index]))
    assert all(one == expected for one in numbers)
    alone, together = measured
    assert sum(len(one.scores) for one in alone.values()) > 100
    assert_same(together, alone)
    assert detector.training


def test_every_image_is_in_one_part(data: DetectionData, tmp_path: Path) -> None:
    input_format = make_detector("retinanet", data, tmp_path).input_format
    parts = [
        [
            i
            for batch in eval_loader(data, input_format=input_format, batch_size=2, rank=rank, world_size=3)
            for i in batch.image_ids
        ]
        for rank in range(3)
    ]
    assert sorted(i for part in parts for i in part) == sorted(record.image_id for record in data.records)
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_classes_of_images_are_shared_too(data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = replace(data, records=tuple(record for record in data.records if len(record.labels) == 1))
    assert single.records
    detector, validate = make_detector("classifier", data, tmp_path), Validation(single, batch_size=1)
    expected = validate(detector)
    group = ThreadGroup(2)
    monkeypatch.setattr(processes, "dist", group)
    assert group.run(lambda rank: validate(deepcopy(detector))) == [expected, expected]  # noqa: ARG005


def test_an_error_in_one_process_is_raised_in_all(
    data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for another that will never come."""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    faulty = replace(data, records=(*data.records[:-1], replace(data.records[-1], path=broken)))
    detector, validate = make_detector("retinanet", data, tmp_path), Validation(faulty, batch_size=2)
    group = ThreadGroup(2)
    monkeypatch.setattr(processes, "dist", group)

    def attempt(rank: Rank) -> str:
        with pytest.raises(ValueError, match=r"broken\.png") as caught:
            validate(detector if rank.is_first else deepcopy(detector))
        return str(caught.value)

    first, second = group.run(attempt)
    assert first == second
