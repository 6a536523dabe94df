"""A step does not depend on how its images are spread over processes and parts: for every head, through the loader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from partition_cases import (
    FAMILIES,
    Step,
    ThreadGroup,
    assert_same_step,
    family_run,
    first_batch,
    make_step,
    step_of_processes,
)

from boxwright.compose.parts import list_parts
from boxwright.data.records import DetectionData
from boxwright.training import partition
from boxwright.training.distributed import Rank
from boxwright.training.run import Run

ALONE = Rank(0, 1, torch.device("cpu"))

families = pytest.mark.parametrize("head", FAMILIES)


def alone(run: Run, *, accumulate: int = 1, empty: tuple[int, ...] = ()) -> Step:
    return make_step(run, first_batch(run, ALONE, empty), accumulate=accumulate)


def test_every_head_has_a_family() -> None:
    assert {head.partition("+")[0] for head in FAMILIES} == set(list_parts("heads"))


@families
def test_batches_have_padding_that_differs_between_processes(head: str, data: DetectionData, tmp_path: Path) -> None:
    run = family_run(head, data, tmp_path)
    batch = first_batch(run, ALONE)
    assert len({target.seed for target in batch.targets}) == len(batch.targets) == 4
    if head == "classifier":
        return
    assert batch.padding_mask is not None
    assert batch.images.shape[-1] != batch.images.shape[-2]
    assert any(side % 8 for side in batch.images.shape[-2:])
    parts = [first_batch(run, Rank(index, 2, ALONE.device)) for index in range(2)]
    assert parts[0].images.shape != parts[1].images.shape
    assert [t.seed for part in parts for t in part.targets] == [t.seed for t in batch.targets]
    assert len({len(t.labels) for t in batch.targets}) > 1


@families
@pytest.mark.parametrize("empty", [(), (2, 3)], ids=["all_have_objects", "the_second_process_has_none"])
def test_neither_parts_nor_processes_change_a_step(
    head: str, empty: tuple[int, ...], data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 x 4 = 4 / 4 accumulated = 2 x 2 = 2 x 2 / 2 accumulated, loss by loss."""
    run = family_run(head, data, tmp_path)
    expected = alone(run, empty=empty)
    assert any(gradient.any() for gradient in expected.gradients.values())
    if not empty:
        assert_same_step(alone(run, accumulate=4), expected)
    group = ThreadGroup(2)
    monkeypatch.setattr(partition, "dist", group)
    for accumulate in (1, 2):
        assert_same_step(step_of_processes(run, group, accumulate=accumulate, empty=empty), expected)


@pytest.mark.parametrize("head", ["rtdetr", "mask_rcnn"])
def test_samples_of_several_images_are_the_same_in_any_process(
    head: str, data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mosaics, mixed inputs and copied objects, with masks: 1 x 4 = 4 / 4 accumulated = 2 x 2."""
    run = family_run(head, data, tmp_path, schedule__mixing_epochs=(0, 1), schedule__no_aug_fraction=0.0)
    few = alone(run)
    run = replace(run, augmentation=replace(run.augmentation, mosaic=0.5, mixup=0.5, copy_blend=1.0))
    expected = alone(run)
    assert few.losses != expected.losses
    assert_same_step(alone(run, accumulate=4), expected)
    group = ThreadGroup(2)
    monkeypatch.setattr(partition, "dist", group)
    assert_same_step(step_of_processes(run, group, accumulate=1, empty=()), expected)


@pytest.mark.parametrize("head", ["rtdetr", "dfine", "detr", "fcos", "efficientdet", "faster_rcnn"])
@pytest.mark.parametrize("count", [0, 1])
def test_a_step_with_fewer_objects_than_processes(
    head: str, count: int, data: DetectionData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = family_run(head, data, tmp_path)
    empty = tuple(range(count, 4))
    group = ThreadGroup(4)
    expected = alone(run, empty=empty)
    monkeypatch.setattr(partition, "dist", group)
    assert_same_step(step_of_processes(run, group, empty=empty), expected)
