"""The training step that takes most time and memory, and its trial in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64

from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import training_sizes
from boxwright.data.loading.sampler import (
    AugmentationStage,
    BatchSampler,
    ImageGroups,
    SampleKey,
    aspect_ratio_groups,
    augmentation_rng,
)
from boxwright.data.records import DetectionData, Record
from boxwright.data.size_survey import draw_mosaic_layout
from boxwright.workflows.fit_trial import Stage, Trial, write_trial
from boxwright.workflows.memory_limits import KILLED

DRAWN_SAMPLES = 2000
"""Training samples of which the size is drawn, at most."""

STARTING_SECONDS = 30.0
"""Time that a process may take besides its steps."""


class WorstStep(NamedTuple):
    """The step that takes most: (height, width) of the padded batch, and its images, those with most objects first."""

    input_size: tuple[int, int]
    records: tuple[Record, ...]


class TrialOutcome(NamedTuple):
    """Stages that came to an end; ``failure`` says why it went no further, None where it did or was not to."""

    stages: tuple[Stage, ...]
    gpu_capacity: int | None
    failure: str | None
    is_out_of_memory: bool = False


def find_worst_step(data: DetectionData, recipe: Recipe) -> WorstStep:
    """Find the largest padded batch among those that training draws, and the images with most objects."""
    options, input_format = recipe.train, recipe.input
    count, largest = len(data.records), max(training_sizes(input_format.image_size, options.batches.multi_scale))
    groups = None
    if options.batches.group_aspect_ratios:
        sizes = [(record.height, record.width) for record in data.records]
        groups = ImageGroups(aspect_ratio_groups(sizes, options.batches.group_aspect_ratios), options.batch_size)
    sampler = BatchSampler(
        seed=options.runtime.seed,
        num_samples=count,
        pseudo=data.pseudo,
        batch_size=options.batch_size,
        num_steps=max(1, min(count, DRAWN_SAMPLES) // options.batch_size),
        image_sizes=(largest,),
        stage_of=lambda _: AugmentationStage.MIXED,
        groups=groups,
    )
    batches = [np.array([_padded_size(data, key, recipe) for key in keys]).max(0) for keys in sampler]
    height, width = max(batches, key=lambda size: int(size.prod())).tolist()
    fullest = sorted(data.records, key=lambda record: -int((~record.crowd).sum()))
    return WorstStep((height, width), tuple(fullest[: options.batch_size]))


def make_trial(
    data: DetectionData, recipe: Recipe, worst: WorstStep, device: torch.device, memory: int | None, seconds: float
) -> Trial:
    """Put together what a trial needs: no image, only sizes and objects.

    Where training makes a sample of several images, each of the step has the objects of as many others too, drawn at
    random, as a sample has at most.

    Args:
        data: whose classes are meant.
        recipe: resolved.
        worst: the step.
        device: that training takes.
        memory: bytes that the trial may take; None for no limit.
        seconds: time that it may take.
    """
    height, width = worst.input_size
    labels, boxes = [], []
    rng, num_others = np.random.default_rng(recipe.train.runtime.seed), recipe.augment.most_images - 1
    for record in worst.records:
        others = rng.integers(len(data.records), size=num_others).tolist()
        shown = [_targets_of(one, height, width) for one in (record, *(data.records[other] for other in others))]
        labels.append(np.concatenate([labels_of for labels_of, _ in shown]).tolist())
        boxes.append(np.concatenate([boxes_of for _, boxes_of in shown]).tolist())
    return Trial(
        recipe=recipe.to_dict(),
        categories=[(category.id, category.name) for category in data.categories],
        input_size=worst.input_size,
        labels=labels,
        boxes=boxes,
        device=str(device),
        threads=torch.get_num_threads(),
        memory=memory,
        seconds=seconds,
    )


def run_in_process(trial: Trial) -> TrialOutcome:
    """Run a trial in a process of its own, and collect what it tells until it ends, or is ended."""
    # The second keeps the current folder, where anything may be, off its import path.
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "boxwright.workflows.fit_trial"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        process.kill()

    timer = threading.Timer(1.5 * trial.seconds + STARTING_SECONDS, end)
    timer.start()
    try:
        output, errors = process.communicate(write_trial(trial))
    finally:
        timer.cancel()
        process.kill()
    outcome = _read_outcome(output, errors, process.returncode)
    if is_late.is_set():
        return outcome._replace(failure=f"no step ended in {trial.seconds:.0f} s", is_out_of_memory=False)
    return outcome


def _targets_of(record: Record, height: int, width: int) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, "n 4"]]:
    """Return labels and boxes of an image's objects, in pixels of a network input that the image fills."""
    single = ~record.crowd
    scale = np.array([width / record.width, height / record.height] * 2)
    return record.labels[single], record.boxes()[single] * scale


def _padded_size(data: DetectionData, key: SampleKey, recipe: Recipe) -> tuple[int, int]:
    """Draw the (height, width) of a training sample after padding, as if it were alone."""
    record, rule = data.records[key.record], recipe.input.resize_rule(key.image_size)
    rng, boxes = augmentation_rng(recipe.train.runtime.seed, key), record.boxes()[~record.crowd]
    mosaic = draw_mosaic_layout(data, key, recipe.augment, rule, rng)
    if mosaic is not None:
        return rule.padded_size(*mosaic.input_size)
    crop, _ = recipe.augment.draw_crop(record.height, record.width, boxes, rule, rng, is_strong=key.is_strong)
    return rule.padded_size(*crop.input_size)


def _read_outcome(output: str, errors: str, code: int) -> TrialOutcome:
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    stages = tuple(Stage(**_without_kind(one)) for one in messages if one["kind"] == "stage")
    capacity = next((one["capacity"] for one in messages if one["kind"] == "built"), None)
    if any(one["kind"] == "out_of_memory" for one in messages):
        return TrialOutcome(stages, capacity, "memory ran out", is_out_of_memory=True)
    told = [one["message"] for one in messages if one["kind"] == "error"]
    if told:
        return TrialOutcome(stages, capacity, told[0])
    if code == 0:
        return TrialOutcome(stages, capacity, None)
    if code in KILLED:
        return TrialOutcome(stages, capacity, "the system ended the trial", is_out_of_memory=True)
    lines = errors.strip().splitlines()
    return TrialOutcome(stages, capacity, lines[-1] if lines else f"the trial ended with code {code}")


def _without_kind(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "kind"}
