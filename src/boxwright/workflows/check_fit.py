"""Check of the fit: time and memory of the worst training step, before any training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import TrainOptions, seconds, training_sizes
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.loading.sampler import SampleKey
from boxwright.data.loading.samples import TrainSet
from boxwright.data.records import DetectionData
from boxwright.data.size_survey import SIZE_STEP, thin_out
from boxwright.detector import Detector
from boxwright.devices import choose_device
from boxwright.training.batches import CACHE_BYTES
from boxwright.workflows.check_network import recipe_of
from boxwright.workflows.check_report import ALL_SPLITS, SplitFinding
from boxwright.workflows.fit_checkpointing import advise_checkpointing
from boxwright.workflows.fit_trial import SAFETY, Trial, count_fitting, extrapolate
from boxwright.workflows.memory_limits import RESERVE_BYTES, FreeMemory, free_memory, resident_memory
from boxwright.workflows.observer import Observer
from boxwright.workflows.worst_step import TrialOutcome, find_worst_step, make_trial, run_in_process

DOES_NOT_FIT = FindingKind(
    "does_not_fit", "error", "recipes need more memory than there is", "the fit names options with which it has room"
)

PeakBasis = Literal["measured", "extrapolated", "exceeded"]

SECONDS = 120.0
"""Time that the trial may take."""

READ_IMAGES = 4


@dataclass(frozen=True, kw_only=True)
class FitCheck:
    """The worst training step of a recipe, against the machine.

    Args:
        device: that training would take.
        input_size: (height, width) of the largest padded batch.
        most_objects: in one image.
        batch_size: images of a step.
        images_at_once: that go through the network together.
        peak: bytes that training needs at most; None where the system does not say.
        capacity: bytes that there are, and whose limit that is; None where the system does not say.
        basis: of ``peak``: the whole step was made (``measured``); it is extrapolated from steps of one image and of
            two (``extrapolated``); or memory ran out, and training needs more than that (``exceeded``).
        step_seconds: of the worst step; None where not even the smallest ended.
        run: images of the split, number of passes, and time of one pass, of all, and of reading an image.
        advice: what can be changed where it does not fit, one line each.
        failure: why no step could be made, where that has nothing to do with memory.
    """

    device: str
    input_size: tuple[int, int]
    most_objects: int
    batch_size: int
    images_at_once: int
    peak: int | None
    capacity: FreeMemory | None
    basis: PeakBasis
    step_seconds: float | None
    run: RunTime
    advice: tuple[str, ...]
    failure: str | None

    @property
    def is_measured(self) -> bool:
        """True where the whole step was made."""
        return self.basis == "measured"

    @property
    def fits(self) -> bool | None:
        """True where training has the memory that it needs; None where that is not known."""
        if self.failure is not None or self.peak is None or self.capacity is None:
            return None
        return self.peak <= self.capacity.bytes

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The finding that it does not fit."""
        if self.fits is not False or self.peak is None or self.capacity is None:
            return ()
        return (Finding(DOES_NOT_FIT, self.device, self._describe_memory()),)

    @property
    def split_findings(self) -> tuple[SplitFinding, ...]:
        """The same, about no split alone."""
        return tuple(SplitFinding(ALL_SPLITS, one) for one in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        capacity, run = self.capacity, self.run
        return {
            **vars(self),
            "fits": self.fits,
            "capacity": None if capacity is None else capacity._asdict(),
            "run": run._asdict(),
        }

    def lines(self) -> list[str]:
        """Describe all of it for the command line."""
        height, width = self.input_size
        parts = "" if self.images_at_once == self.batch_size else f", {self.images_at_once} at once"
        lines = [
            f"worst step: {self.batch_size} images{parts} of {width} x {height} pixels, up to {self.most_objects} "
            f"objects in one, on {self.device}"
        ]
        if self.failure is not None:
            return [*lines, f"no step could be made: {self.failure}"]
        how = "measured" if self.is_measured else "extrapolated from smaller steps"
        if self.peak is not None:
            how_much = "memory ran out" if self.basis == "exceeded" else how
            verdict = {True: "fits", False: "does not fit", None: "limit unknown"}[self.fits]
            lines.append(f"memory: {self._describe_memory()}, {how_much}: {verdict}")
        lines += [f"  {line}" for line in self.advice]
        if self.step_seconds is not None:
            lines.append(f"time: {self.step_seconds:.2g} s for that step, {how}; {self.run.describe()}")
        return lines

    def _describe_memory(self) -> str:
        more = "more than " if self.basis == "exceeded" else ""
        there = f" of {_gib(self.capacity.bytes)} ({self.capacity.owner})" if self.capacity else ""
        return f"{more}{_gib(self.peak or 0)}{there}"


class RunTime(NamedTuple):
    """Time of training, for steps of average size: ``epoch`` and ``total`` are in seconds, and None where not known.

    ``reading`` is the time to read and augment one image; None where none could be read.
    """

    images: int
    epochs: float | None
    epoch: float | None
    total: float | None
    reading: float | None

    def describe(self) -> str:
        """Say it in words."""
        if self.epoch is None or self.total is None or self.epochs is None:
            return "the time of an epoch is not known"
        reading = "" if self.reading is not None else ", reading of images not counted"
        return (
            f"about {_duration(self.epoch)} for an epoch of {self.images:,} images{reading}, "
            f"{_duration(self.total)} for the recipe's {self.epochs:.3g} epochs, evaluations not counted"
        )


def check_fit(
    data: DetectionData | Mapping[str, DetectionData],
    recipe: Recipe | Detector,
    *,
    limit_seconds: float = SECONDS,
    memory: FreeMemory | None = None,
    observer: Observer | None = None,
) -> FitCheck:
    """Make the worst training step of a recipe in a process of its own, and compare it with the machine.

    The worst step has the largest inputs that training draws, and the images with most objects. Steps of one image and
    of two are made first; the whole step only where memory lasts for what follows from them. The images are noise:
    time and memory are the same.

    Args:
        data: splits by name, of which ``train`` or the first is meant; or that split.
        recipe: a resolved recipe, or a detector that was built from one.
        limit_seconds: time that may be taken.
        memory: memory that there is; what is free where None.
        observer: told what begins.

    Raises:
        ValueError: there are no images, or there is no such device.
    """
    recipe = recipe_of(recipe)
    training = data if isinstance(data, DetectionData) else data.get("train", next(iter(data.values())))
    if not training.records:
        raise ValueError(f"{training.source}: there are no images to train on")
    device, options = choose_device(recipe.train.runtime.device), recipe.train
    worst = find_worst_step(training, recipe)
    (observer or Observer()).announce(
        f"trying the largest training step on {device}, {worst.input_size[1]} x {worst.input_size[0]} pixels"
    )
    capacity = memory or free_memory()
    allowed = None if capacity is None else capacity.bytes - (RESERVE_BYTES if memory is None else 0)
    outcome = run_in_process(trial := make_trial(training, recipe, worst, device, allowed, limit_seconds))
    together = -(-options.batch_size // options.batches.accumulate_steps)
    cache = 0 if device.type == "cuda" else min(CACHE_BYTES, sum(3 * r.height * r.width for r in training.records))
    if outcome.gpu_capacity is not None:
        capacity = FreeMemory(outcome.gpu_capacity, "GPU")
    elif capacity is not None and memory is None:
        # This process would be the one that trains.
        capacity = FreeMemory(capacity.bytes + resident_memory() - RESERVE_BYTES, capacity.owner)
    peak, basis = _peak(outcome, together, cache, capacity)
    fits = peak is None or capacity is None or peak <= capacity.bytes
    step = _step_seconds(outcome, together, options)
    return FitCheck(
        device=str(device),
        input_size=worst.input_size,
        most_objects=max(map(len, trial.labels)),
        batch_size=options.batch_size,
        images_at_once=together,
        peak=peak,
        capacity=capacity,
        basis=basis,
        step_seconds=step,
        run=_run_time(training, recipe, step, device),
        advice=() if fits or capacity is None else _advise(outcome, recipe, trial, capacity.bytes - cache),
        failure=None if outcome.is_out_of_memory or len(outcome.stages) > 1 else outcome.failure,
    )


def _peak(
    outcome: TrialOutcome, together: int, cache: int, capacity: FreeMemory | None
) -> tuple[int | None, PeakBasis]:
    """Return the bytes that training needs, and what they are known from."""
    whole = [stage.peak for stage in outcome.stages if stage.is_whole and stage.peak is not None]
    if whole:
        return max(whole) + cache, "measured"
    expected = extrapolate(outcome.stages, together, memory=True)
    needed = None if expected is None else int(expected * SAFETY) + cache
    if outcome.is_out_of_memory and capacity is not None and (needed is None or needed <= capacity.bytes):
        return capacity.bytes + 1, "exceeded"
    return needed, "extrapolated"


def _step_seconds(outcome: TrialOutcome, together: int, options: TrainOptions) -> float | None:
    whole = [stage.seconds for stage in outcome.stages if stage.is_whole]
    if whole:
        return whole[-1]
    expected = extrapolate(outcome.stages, together, memory=False)
    return None if expected is None else expected * options.batch_size / together


def _run_time(data: DetectionData, recipe: Recipe, step: float | None, device: torch.device) -> RunTime:
    """Work out epochs and times from the worst step; other image sizes take time as their areas do."""
    options, count = recipe.train, len(data.records)
    reading = _reading_seconds(data, recipe)
    if step is None:
        return RunTime(count, None, None, None, reading)
    sizes = training_sizes(recipe.input.image_size, options.batches.multi_scale)
    typical = step * sum((size / max(sizes)) ** 2 for size in sizes) / len(sizes)
    computing, loading = typical * count / options.batch_size, (reading or 0.0) * count
    workers = options.runtime.workers
    if workers is None:
        workers = min(8, torch.get_num_threads()) if device.type == "cuda" else 0
    epoch = max(computing, loading / workers) if workers else computing + loading
    if options.budget is not None:
        total = seconds(options.budget)
        return RunTime(count, total / epoch, epoch, total, reading)
    epochs = options.epochs if options.steps is None else options.steps * options.batch_size / count
    return RunTime(count, epochs, epoch, epochs * epoch, reading)


def _reading_seconds(data: DetectionData, recipe: Recipe) -> float | None:
    """Measure the time to make a training sample; None where an image cannot be read."""
    few = thin_out(data, READ_IMAGES)
    samples = TrainSet(few, augmentation=recipe.augment, input_format=recipe.input, seed=recipe.train.runtime.seed)
    start = time.perf_counter()
    try:
        for index in range(len(samples)):
            samples[SampleKey(index, 0, recipe.input.image_size, is_mixed=True)]
    except (OSError, ValueError):
        return None
    return (time.perf_counter() - start) / len(samples)


def _advise(outcome: TrialOutcome, recipe: Recipe, trial: Trial, available: int) -> tuple[str, ...]:
    advice = _advice(outcome, recipe, available)
    return (*advice, *advise_checkpointing(trial, outcome.stages, available, run_in_process))


def _advice(outcome: TrialOutcome, recipe: Recipe, available: int) -> Iterator[str]:
    """Suggest options with which the worst step has room; each of them alone is enough."""
    options, size = recipe.train, recipe.input.image_size
    one, two = (extrapolate(outcome.stages, count, memory=True) for count in (1, 2))
    if one is None or two is None:
        yield "not even the smallest step has room: take a smaller recipe, or a smaller --image-size"
        return
    slope, room = max(two - one, 1.0), available / SAFETY
    together = -(-options.batch_size // options.batches.accumulate_steps)
    images = count_fitting(outcome.stages, available) or 0
    if images >= 1:
        parts = next(
            n
            for n in range(1, options.batch_size + 1)
            if options.batch_size % n == 0 and options.batch_size / n <= images
        )
        at_once = options.batch_size // parts
        yield (
            f"--train.batches.accumulate_steps {parts}: {at_once} images at once and the same gradient, "
            "but for batch norms, which see fewer images"
        )
        yield f"--train.batch_size {min(images, options.batch_size - 1)}: fewer images for a step"
    largest = max(training_sizes(size, options.batches.multi_scale))
    if largest > size and _fits_at(size / largest, one - slope, slope * together, room):
        yield f"--train.batches.multi_scale 0: every input of {size} pixels, not up to {largest}"
    smaller = int(size * math.sqrt(max(0.0, room - (one - slope)) / (slope * together))) // SIZE_STEP * SIZE_STEP
    if SIZE_STEP <= smaller < size:
        yield f"--image-size {smaller}"
    elif images < 1:
        yield "take a smaller recipe: not even one image has room"


def _fits_at(scale: float, fixed: float, growing: float, room: float) -> bool:
    return fixed + growing * scale**2 <= room


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _duration(duration: float) -> str:
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if duration >= 2 * length:
            return f"{duration / length:.3g} {unit}"
    return f"{duration:.2g} s"
