"""The training batches of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from boxwright.compose.train_options import training_sizes
from boxwright.data.loading.loader import BatchLoader, train_loader
from boxwright.data.loading.sampler import AugmentationStage, BatchSampler, ImageGroups, aspect_ratio_groups
from boxwright.data.loading.shared_memory import count_workers
from boxwright.data.records import image_sizes, object_columns
from boxwright.structures import Batch
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule

CACHE_BYTES = 2 * 2**30
"""Memory for decoded images, over all processes that read them."""


def training_batches(run: Run, rank: Rank, schedule: Schedule, progress: Progress) -> Iterator[Batch]:
    """Make this process's part of every step that is left, without end where the run has a budget of time."""
    options = run.options
    _note_unmixed(run, schedule)
    sampler = BatchSampler(
        seed=options.runtime.seed,
        num_samples=len(run.data.records),
        pseudo=run.data.pseudo,
        batch_size=options.batch_size,
        num_steps=progress.steps if options.budget is None else None,
        image_sizes=training_sizes(run.detector.input_format.image_size, options.batches.multi_scale),
        start_step=progress.step,
        stage_of=lambda step: schedule.stage(progress.position(step)),
        no_aug_size=run.detector.input_format.image_size,
        rank=rank.index,
        world_size=rank.world_size,
        groups=_groups(run),
    )
    return iter(_loader(run, sampler, rank))


def _note_unmixed(run: Run, schedule: Schedule) -> None:
    """Say which samples of several images a run has options for and never makes."""
    first, last = schedule.mixing_steps
    ends = {"mosaic": last, "mixup": last, "copy_blend": schedule.steps}
    unused = [
        f"augment.{name}"
        for name, end in ends.items()
        if getattr(run.augmentation, name) and first >= min(end, schedule.no_aug_from)
    ]
    if unused:
        run.note(
            f"{', '.join(unused)}: never on in these {schedule.steps} steps, of which the last "
            f"{schedule.steps - schedule.no_aug_from} are without strong augmentation; give "
            "--train.schedule.no_aug_fraction 0.1, or train longer"
        )


def leave_out_empty(run: Run) -> Run:
    """Leave out the images without any annotation, where the options say so.

    Source: torchvision's and mmdetection's training, which take images that show nothing but crowds in.

    Raises:
        ValueError: no image is left.
    """
    if not run.options.batches.skip_empty_images:
        return run
    filled = np.unique(object_columns(run.data.records).image_index)
    data = run.data.select(filled)
    if not data.records:
        raise ValueError(
            f"{run.data.source}: no image has an object; to train on images without objects, "
            "--train.batches.skip_empty_images false"
        )
    left_out = len(run.data.records) - len(data.records)
    if left_out and run.console is not None:
        run.console.print(
            f"{left_out} of {len(run.data.records)} images have no objects and are left out "
            "(--train.batches.skip_empty_images false trains on them)",
            highlight=False,
            soft_wrap=True,
        )
    return replace(run, data=data)


def batches_of_size(run: Run, rank: Rank, size: int) -> Iterator[Batch]:
    """Make batches as training has them, all of one image size; to measure with, so there are only so many.

    They are of the stage that takes longest, with samples of several images where the recipe has them.
    """
    sampler = BatchSampler(
        seed=run.options.runtime.seed,
        num_samples=len(run.data.records),
        pseudo=run.data.pseudo,
        batch_size=run.options.batch_size,
        num_steps=1000,
        image_sizes=(size,),
        stage_of=lambda _: AugmentationStage.MIXED,
        groups=_groups(run),
    )
    return iter(_loader(run, sampler, rank))


def _groups(run: Run) -> ImageGroups | None:
    options = run.options
    if options.batches.group_aspect_ratios == 0:
        return None
    sizes = [(height, width) for height, width in image_sizes(run.data.records).tolist()]
    # Of a whole step: its images have one padded size, and do not depend on how many processes there are.
    return ImageGroups(aspect_ratio_groups(sizes, options.batches.group_aspect_ratios), options.batch_size)


def _loader(run: Run, sampler: BatchSampler, rank: Rank) -> BatchLoader:
    on_gpu = rank.device.type == "cuda"
    workers = run.options.runtime.workers
    if workers is None:
        # Beside training on a CPU, a reading process only takes cores away from it.
        workers = min(8, torch.get_num_threads()) if on_gpu else 0
    workers = _fit_workers(run, workers, sampler.batch_size // sampler.world_size)
    return train_loader(
        run.data,
        augmentation=run.augmentation,
        input_format=run.detector.input_format,
        sampler=sampler,
        num_workers=workers,
        cache_bytes=CACHE_BYTES // max(1, workers),
        pin_memory=on_gpu,
        with_masks=run.detector.needs_masks,
        image_transforms=run.image_transforms,
        input_transforms=run.input_transforms,
    )


def _fit_workers(run: Run, asked: int, images: int) -> int:
    """Return how many processes may read, and say so where shared memory has no room for more."""
    input_format = run.detector.input_format
    side = max(training_sizes(input_format.image_size, run.options.batches.multi_scale))
    cells = side * max(side, input_format.max_size or side)
    # An image is three floats a pixel, its padding mask and masks of objects a byte.
    masks = max((len(record.labels) for record in run.data.records), default=0) if run.detector.needs_masks else 0
    masks *= run.augmentation.most_images
    workers = count_workers(asked, images * cells * (3 * 4 + 1 + masks)) if asked else 0
    if workers < asked:
        run.note(
            f"shared memory (/dev/shm) has room for the batches of {workers} of {asked} processes that read images; a "
            "container gets more with --shm-size"
        )
    return workers
