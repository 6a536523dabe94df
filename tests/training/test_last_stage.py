"""The last stage of training: one image size, and images that are only mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from boxwright.data.loading.sampler import SampleKey
from boxwright.data.loading.samples import Sample, TrainSet
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.structures import Batch
from boxwright.training.batches import training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule

MakeRun = Callable[..., Run]

STEPS, FIRST = 18, 12
STAGES = {"steps": STEPS, "schedule__no_aug_fraction": 1 / 3, "batches__multi_scale": 0.5, "batch_size": 2}


def batches(run: Run) -> list[Batch]:
    schedule = Schedule(STEPS, run.options, len(run.data.records))
    assert schedule.no_aug_from == FIRST
    return list(
        islice(
            training_batches(
                run, Rank(0, 1, torch.device("cpu")), schedule, Progress(step=0, steps=STEPS, evaluations=1)
            ),
            STEPS,
        )
    )


def test_sizes_change_until_the_last_stage_and_not_in_it(make_run: MakeRun) -> None:
    """Every step of the stage has the size of the input format, and the steps before have three."""
    sizes = [batch.images.shape[-1] for batch in batches(make_run(**STAGES))]
    assert set(sizes[:FIRST]) == {32, 64, 96}
    assert sizes[FIRST:] == [64] * (STEPS - FIRST)


def test_images_of_the_last_stage_are_whole_and_of_their_own_colors(make_run: MakeRun) -> None:
    """Each is the image that evaluation shows, or its mirror image; before, hardly one is."""
    strong = Augmentation(photometric=1.0, channel_shuffle=1.0, zoom_out=1.0, iou_crop=1.0, flip=0.5)
    run = replace(make_run(**STAGES), augmentation=strong)
    plain = replace(
        run, augmentation=Augmentation(photometric=0.0, channel_shuffle=0.0, zoom_out=0.0, iou_crop=0.0, flip=0.0)
    )
    is_plain = []
    for batch, own in zip(batches(run), batches(plain), strict=True):
        pairs = zip(batch.images, own.images, strict=True)
        is_plain.append([bool(torch.equal(a, b) or torch.equal(a.flip(-1), b)) for a, b in pairs])
        assert batch.image_ids == own.image_ids
    assert all(map(all, is_plain[FIRST:]))
    assert not any(map(any, is_plain[:FIRST]))


def test_own_transforms_hear_of_the_last_stage(make_run: MakeRun) -> None:
    heard: list[bool] = []

    def listen(sample: TrainingSample, context: TransformContext) -> TrainingSample:
        heard.append(context.is_strong)
        return sample

    run = replace(make_run(**STAGES), image_transforms=(listen,))
    assert len(batches(run)) == STEPS
    assert heard == [True] * 2 * FIRST + [False] * 2 * (STEPS - FIRST)


def test_samples_of_the_last_stage_keep_all_objects(make_run: MakeRun) -> None:
    """No crop takes one away: boxes are those of the image, or mirrored."""
    run = make_run(**STAGES)
    samples = TrainSet(
        run.data, augmentation=Augmentation(zoom_out=1.0, iou_crop=1.0), input_format=run.recipe.input, seed=0
    )
    for index, record in enumerate(run.data.records):
        sample: Sample = samples[SampleKey(index, 0, 64, is_strong=False)]
        assert len(sample.labels) == int((~record.crowd).sum())
        scale = np.array([64 / record.width, 64 / record.height] * 2, dtype=np.float32)
        expected = torch.from_numpy(record.boxes()[~record.crowd] * scale)
        mirrored = torch.stack((64 - expected[:, 2], expected[:, 1], 64 - expected[:, 0], expected[:, 3]), 1)
        close = [torch.allclose(sample.boxes, boxes, atol=1e-3) for boxes in (expected, mirrored)]
        assert any(close)
