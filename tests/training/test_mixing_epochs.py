"""Samples of several images in a run: in their epochs, at any length, and the same after a stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import TrainingSample, TransformContext
from boxwright.training.batches import batches_of_size, training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank
from boxwright.training.interrupt import Interrupted
from boxwright.training.log import read_log
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from boxwright.training.schedule import Schedule
from equality import assert_equal, timeless
from training.conftest import read_run

MakeRun = Callable[..., Run]

ALONE = Rank(0, 1, torch.device("cpu"))
STAGES: dict[str, Any] = {
    "epochs": 10,
    "steps": 20,
    "batch_size": 2,
    "schedule__mixing_epochs": (2, 5),
    "schedule__no_aug_fraction": 0.2,
    "schedule__decay": "flat_cosine",
    "schedule__milestones": [5],
    "schedule__warmup_steps": 2,
    "schedule__evaluations": 2,
}
"""Of 20 steps, 4 are only flipped, 6 mixed, 6 of single images, and 4 the last stage."""

MIXED = Augmentation(mosaic=0.5, mixup=0.5, copy_blend=0.5)


def heard_stages(run: Run, progress: Progress) -> list[tuple[bool, bool]]:
    """(strong, mixed) of the samples of each step, told by an own transform."""
    heard: list[tuple[bool, bool]] = []

    def listen(sample: TrainingSample, context: TransformContext) -> TrainingSample:
        heard.append((context.is_strong, context.is_mixed))
        return sample

    run = replace(run, image_transforms=(listen,), augmentation=Augmentation())
    schedule = Schedule(progress.length, run.options, len(run.data.records))
    steps = len(list(islice(training_batches(run, ALONE, schedule, progress), progress.steps)))
    assert len(heard) == 2 * steps
    assert heard[::2] == heard[1::2]
    return heard[::2]


@pytest.mark.parametrize("steps", [20, 40])
def test_stages_are_in_proportion_to_the_steps(steps: int, make_run: MakeRun) -> None:
    run = make_run(**{**STAGES, "steps": steps})
    stages = heard_stages(run, Progress(step=0, steps=steps, evaluations=2))
    counts = [(4, (False, False)), (6, (True, True)), (6, (True, False)), (4, (False, False))]
    assert stages == [stage for count, stage in counts for _ in range(count * steps // 20)]


def test_a_run_that_becomes_shorter_goes_through_all_stages(make_run: MakeRun) -> None:
    """With a budget of time, what is left of the schedule is laid over the steps that are left."""
    progress = Progress(step=4, steps=20, evaluations=2)
    progress.plan_anew(8)
    stages = heard_stages(make_run(**{**STAGES, "steps": None, "budget": "10m"}), progress)
    assert stages[:8] == [(True, True)] * 3 + [(True, False)] * 3 + [(False, False)] * 2


@pytest.mark.parametrize(
    ("options", "unused"),
    [
        ({}, []),
        ({"schedule__no_aug_fraction": 1.0}, ["mosaic", "mixup", "copy_blend"]),
        ({"schedule__no_aug_fraction": 0.8}, ["mosaic", "mixup", "copy_blend"]),
        ({"schedule__mixing_epochs": (2, 2)}, ["mosaic", "mixup"]),
    ],
)
def test_a_run_that_never_mixes_says_so(options: dict[str, Any], unused: list[str], make_run: MakeRun) -> None:
    """Short ones are without strong augmentation, where the user has asked for mosaics."""
    notes: list[str] = []
    run = replace(make_run(**{**STAGES, **options}), augmentation=MIXED, note=notes.append)
    schedule = Schedule(20, run.options, len(run.data.records))
    next(training_batches(run, ALONE, schedule, Progress(step=0, steps=20, evaluations=2)))
    names = ", ".join(f"augment.{name}" for name in unused)
    assert [note.partition(":")[0] for note in notes] == ([names] if unused else [])


def test_steps_are_measured_with_all_that_training_reads(make_run: MakeRun) -> None:
    run = replace(make_run(**STAGES), augmentation=replace(MIXED, mosaic=1.0, mixup=1.0))
    few = sum(
        len(t.labels) for batch in islice(batches_of_size(make_run(**STAGES), ALONE, 64), 8) for t in batch.targets
    )
    many = sum(len(t.labels) for batch in islice(batches_of_size(run, ALONE, 64), 8) for t in batch.targets)
    assert many > 3 * few


def test_a_broken_run_ends_as_the_unbroken_one(make_run: MakeRun, interrupt_at: Callable[[int], None]) -> None:
    """Bit by bit, with a stop in the epochs of mosaics; the rate is that of flat cosine."""
    whole = replace(make_run("whole", **STAGES), augmentation=MIXED)
    run_training(whole)
    interrupt_at(7)
    with pytest.raises(Interrupted):
        run_training(replace(make_run("broken", **STAGES), augmentation=MIXED))
    interrupt_at(1000)
    broken = replace(make_run("broken", weights_seed=99, **STAGES), augmentation=MIXED)
    run_training(broken, resume=True)
    assert_equal(read_run(broken, "last.pt"), read_run(whole, "last.pt"))
    assert timeless(read_log(broken.folder)) == timeless(read_log(whole.folder))
    rates = np.array([row["lr"] for row in read_log(whole.folder) if row["kind"] == "train"]) / 1e-3
    assert rates[2:11] == pytest.approx(1.0)
    assert rates[13] == pytest.approx(0.02 + 0.98 * 0.5)
    assert rates[16:] == pytest.approx(0.02)
