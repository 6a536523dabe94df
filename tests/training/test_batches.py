"""The batches of a run: aspect ratios, images without objects, own transforms."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from boxwright.data.records import DetectionData
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.structures import Batch
from boxwright.training.batches import batches_of_size, leave_out_empty, training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule

MakeRun = Callable[..., Run]

ALONE = Rank(0, 1, torch.device("cpu"))
SHAPES = [(60, 80), (80, 60), (60, 80), (60, 80), (80, 60), (60, 80), (80, 60), (60, 80), (80, 60), (80, 60)]


def batches(run: Run, count: int, rank: Rank = ALONE) -> list[Batch]:
    schedule = Schedule(run.options.steps or count, run.options, len(run.data.records))
    return list(
        islice(training_batches(run, rank, schedule, Progress(step=0, steps=schedule.steps, evaluations=1)), count)
    )


@pytest.fixture
def mixed(data: DetectionData, tmp_path: Any) -> DetectionData:
    """Ten images, five wide and five tall."""
    records = []
    for record, (height, width) in zip(data.records, SHAPES, strict=True):
        path = tmp_path / f"{record.image_id}.png"
        Image.open(record.path).resize((width, height)).save(path)
        records.append(replace(record, path=path, height=height, width=width))
    return replace(data, records=tuple(records))


@pytest.mark.parametrize("groups", [2, 8])
@pytest.mark.parametrize(("accumulate", "world_size"), [(2, 1), (1, 2)])
def test_images_of_a_step_have_like_aspect_ratios(
    make_run: MakeRun, mixed: DetectionData, groups: int, accumulate: int, world_size: int
) -> None:
    """The same images, however they are spread: all are padded to one size."""
    options = {"batches__group_aspect_ratios": groups, "steps": 10}
    alone = [batch.image_ids for batch in batches(replace(make_run(**options), data=mixed), 10)]
    run = replace(make_run(**options, batches__accumulate_steps=accumulate), data=mixed)
    ranks = [Rank(index, world_size, torch.device("cpu")) for index in range(world_size)]
    spread = zip(*(batches(run, 10, rank) for rank in ranks), strict=True)
    assert [[i for batch in parts for i in batch.image_ids] for parts in spread] == alone
    shape_of = {record.image_id: (record.height, record.width) for record in mixed.records}
    mixed_steps = sum(len({shape_of[i] for i in ids}) > 1 for ids in alone)
    # Of five images one or two are left over in an epoch, and meet across its end.
    assert mixed_steps == 2
    plain = replace(make_run(steps=10), data=mixed)
    assert sum(len({shape_of[i] for i in batch.image_ids}) > 1 for batch in batches(plain, 10)) > 6


def test_speed_is_measured_on_grouped_batches(make_run: MakeRun, mixed: DetectionData) -> None:
    run = replace(make_run(batches__group_aspect_ratios=2, batch_size=2), data=mixed)
    shape_of = {record.image_id: (record.height, record.width) for record in mixed.records}
    measured = list(islice(batches_of_size(run, ALONE, 64), 4))
    assert [len({shape_of[i] for i in batch.image_ids}) for batch in measured] == [1] * 4


def test_images_without_objects_are_left_out_where_asked_for(make_run: MakeRun, data: DetectionData) -> None:
    empty, crowded = (
        replace(
            data.records[0],
            labels=data.records[0].labels[:count],
            bbox_xywh=data.records[0].bbox_xywh[:count],
            area=data.records[0].area[:count],
            crowd=data.records[0].crowd[:count] | True,
            annotation_ids=data.records[0].annotation_ids[:count],
            segmentations=data.records[0].segmentations[:count],
        )
        for count in (0, 1)
    )
    changed = replace(data, records=(empty, crowded, *data.records[2:]))
    with_objects = [record for record in changed.records if len(record.labels)]
    console_output = io.StringIO()
    run = replace(make_run(), data=changed, console=Console(file=console_output))
    assert leave_out_empty(run) is run
    run = replace(make_run(batches__skip_empty_images=True), data=changed, console=Console(file=console_output))
    assert list(leave_out_empty(run).data.records) == with_objects
    # An image that shows nothing but a crowd stays, as in torchvision and mmdetection.
    assert any(record is crowded for record in with_objects)
    left_out = len(changed.records) - len(with_objects)
    assert left_out >= 1
    assert f"{left_out} of 10 images have no objects and are left out" in console_output.getvalue()


def test_no_image_with_objects_is_an_error(make_run: MakeRun, data: DetectionData) -> None:
    run = make_run(batches__skip_empty_images=True)
    run = replace(run, data=replace(data, records=()))
    with pytest.raises(ValueError, match=r"no image has an object; to train on .* --train\.batches\.skip_empty"):
        leave_out_empty(run)


class Darken:
    """Makes a network input black, and writes down what it saw."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def __call__(self, sample: TrainingSample, _context: TransformContext) -> TrainingSample:
        self.sizes.append(sample.image.shape[:2])
        return replace(sample, image=sample.image * 0)


def test_own_transforms_reach_the_images(make_run: MakeRun) -> None:
    whole, late = Darken(), Darken()
    run = make_run(batches__multi_scale=0.0)
    [batch] = batches(replace(run, image_transforms=[whole]), 1)
    assert set(whole.sizes) <= {(record.height, record.width) for record in run.data.records}
    assert len(whole.sizes) == 4
    assert len(batch.images.unique()) == 1
    [batch] = batches(replace(run, input_transforms=[late]), 1)
    assert set(late.sizes) == {(64, 64)}
    assert len(batch.images.unique()) == 1
