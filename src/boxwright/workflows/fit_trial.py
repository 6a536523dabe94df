"""Trial of training steps in a process of its own, which the system may end without harm.

``python -m boxwright.workflows.fit_trial`` reads a ``Trial`` as JSON and writes a line of JSON after each stage:
steps of one image and of two, then, unless memory or time would not last for it, of the whole batch.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import torch

from boxwright.compose.detectors import build_resolved
from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import TrainOptions
from boxwright.contracts import WorstCaseHead
from boxwright.detector import Detector
from boxwright.structures import Batch, Category, ImageSize, Targets
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import resolve_precision, train_step
from boxwright.workflows.memory_limits import limit_memory, peak_memory, reset_peak, resident_memory

SAFETY = 1.1
"""Factor on extrapolated memory."""

OUT_OF_MEMORY = ("alloc", "out of memory", "could not create a primitive")
"""Parts of the messages of torch, of C++ and of oneDNN where memory runs out."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Everything that the steps consist of; images are noise, which takes as much time and memory.

    Args:
        recipe: in plain values.
        categories: ids and names.
        input_size: (height, width) of the padded batch.
        labels: of the objects of each image.
        boxes: corner boxes in pixels of the network input.
        device: of the training.
        threads: of torch.
        memory: bytes that may be taken; None for no limit.
        seconds: time for all of it.
        with_whole: end with steps of the whole batch where memory and time last; the small ones alone otherwise.
    """

    recipe: dict[str, Any]
    categories: list[tuple[int, str]]
    input_size: tuple[int, int]
    labels: list[list[int]]
    boxes: list[list[list[float]]]
    device: str
    threads: int
    memory: int | None
    seconds: float
    with_whole: bool = True


class Stage(NamedTuple):
    """One measured step.

    ``images`` went through the network together; the step took ``seconds``, and the process had ``peak`` bytes at
    most, None where the system does not say. ``is_whole`` is true of the step with all images of the batch.
    """

    images: int
    seconds: float
    peak: int | None
    is_whole: bool = False


def extrapolate(stages: Sequence[Stage], images: int, *, memory: bool) -> float | None:
    """Return peak bytes, or seconds, of a step with so many images at once, from those of the smaller steps.

    Args:
        stages: at least two besides that of the whole batch, the first of which is before any step, of no image.
        images: that go through the network together.
        memory: bytes, not seconds.

    Returns:
        None where too few stages have such a number.
    """
    points = [(one.images, one.peak if memory else one.seconds) for one in stages if not one.is_whole]
    known = [(count, float(value)) for count, value in points if value is not None]
    if not known:
        return None
    if len(known) == 1:
        return known[0][1] if known[0][0] == images else None
    (first, start), (last, end) = known[-2:]
    slope = max(0.0, (end - start) / (last - first))
    return end + slope * (images - last)


def count_fitting(stages: Sequence[Stage], memory: int) -> int | None:
    """Return how many images have room in so many bytes when they go through the network together.

    Args:
        stages: as for ``extrapolate``.
        memory: bytes, of which the safety margin is taken off here.

    Returns:
        0 or less where not even one has; None where no memory was measured.
    """
    points = [(one.images, one.peak) for one in stages if not one.is_whole and one.peak is not None]
    if len(points) < 2:
        return None
    (first, start), (last, end) = points[-2:]
    slope = max((end - start) / (last - first), 1.0)
    return last + math.floor((memory / SAFETY - end) / slope)


def run_trial(trial: Trial, tell: Callable[[dict[str, Any]], None]) -> None:
    """Run all stages, and tell each of them."""
    began = time.monotonic()
    torch.set_num_threads(trial.threads)
    steps = _Steps(trial)
    if trial.memory is not None and steps.device.type == "cpu":
        limit_memory(max(0, trial.memory - resident_memory()))
    stages = [Stage(0, 0.0, steps.resident())]
    tell({"kind": "built", "capacity": steps.gpu_capacity})
    tell({"kind": "stage", **stages[0]._asdict()})
    options = steps.options
    together = -(-options.batch_size // options.batches.accumulate_steps)
    for stage in steps.measure_small(together if trial.with_whole else together + 1):
        stages.append(stage)
        tell({"kind": "stage", **stage._asdict()})
        if time.monotonic() - began + 4 * stage.seconds > trial.seconds:
            break
    if not trial.with_whole:
        return
    capacity = steps.gpu_capacity or trial.memory
    needed = extrapolate(stages, together, memory=True)
    if capacity is not None and needed is not None and needed * SAFETY > capacity:
        return
    parts = options.batch_size / together
    expected = (extrapolate(stages, together, memory=False) or 0.0) * parts
    if time.monotonic() - began + 2 * expected > trial.seconds:
        return
    stage = steps.measure(options.batch_size, is_whole=True)
    tell({"kind": "stage", **stage._asdict()})
    if time.monotonic() - began + stage.seconds < trial.seconds:
        tell({"kind": "stage", **steps.measure(options.batch_size, is_whole=True)._asdict()})


class _Steps:
    """Real training steps of a recipe with the batch of a trial."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.device = trial, torch.device(trial.device)
        self.gpu_capacity = None
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            self.gpu_capacity = torch.cuda.mem_get_info(self.device)[0]
        # The process that sends it has resolved it.
        recipe = Recipe.from_dict(trial.recipe, trusted=None)
        self.options: TrainOptions = resolve_precision(recipe.train, self.device)
        torch.manual_seed(0)
        categories = [Category(*one) for one in trial.categories]
        self.detector: Detector = build_resolved(recipe, categories=categories)
        self.detector.freeze(self.options.freeze)
        self.detector.to(self.device).train()
        if self.device.type == "cpu":
            self.detector.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.detector, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
        self.average = MovingAverage(self.detector) if self.options.ema_decay else None

    def resident(self) -> int | None:
        """Return the bytes in memory now."""
        if self.device.type == "cuda":
            return torch.cuda.memory_reserved(self.device)
        return resident_memory() or None

    def measure_small(self, together: int) -> Iterator[Stage]:
        """Make steps of one image and of two, the first of each twice, as far as they are fewer than all."""
        first = 1
        for _ in range(2):
            if first >= together:
                return
            try:
                self.measure(first)
            except ValueError as error:
                # One image whose maps have one cell cannot be normalized; two can.
                if "batch norm" not in str(error):
                    raise
                first *= 2
                continue
            yield self.measure(first)
            if 2 * first < together:
                yield self.measure(2 * first)
            return

    def measure(self, count: int, *, is_whole: bool = False) -> Stage:
        """Make a step of so many images, in as many parts as the recipe has if these are all."""
        parts = self.options.batches.accumulate_steps if is_whole else 1
        options = replace(self.options, batch_size=count, batches=replace(self.options.batches, accumulate_steps=parts))
        reset_peak()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        batch = make_batch(self.trial, self.detector, count)
        try:
            train_step(self.detector, self.detector, self.optimizer, batch, options, self.device)
        except ValueError as error:
            # Weights are random, and what their loss comes to does not matter here.
            if "diverged" not in str(error):
                raise
            self.optimizer.step()
        if self.average is not None:
            self.average.update(self.detector, 0.5)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            peak: int | None = torch.cuda.max_memory_reserved(self.device)
        else:
            peak = peak_memory()
        return Stage(-(-count // parts), time.perf_counter() - start, peak, is_whole)


def make_batch(trial: Trial, detector: Detector, count: int) -> Batch:
    """Make a batch of so many images of noise, with the objects of a trial."""
    height, width = trial.input_size
    targets = [_make_targets(trial, i, with_masks=detector.needs_masks) for i in range(count)]
    if isinstance(detector.head, WorstCaseHead):
        targets = detector.head.worst_case_targets(targets)
    sizes = [ImageSize(height, width, height, width)] * count
    return Batch(torch.rand(count, 3, height, width), None, targets, sizes, list(range(count)))


def _make_targets(trial: Trial, index: int, *, with_masks: bool) -> Targets:
    index %= max(1, len(trial.labels))
    size = trial.input_size
    labels = torch.tensor(trial.labels[index], dtype=torch.int64)
    boxes = torch.tensor(trial.boxes[index], dtype=torch.float32).reshape(-1, 4)
    masks = None
    if with_masks:
        masks = torch.zeros(len(labels), *size, dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1 : y2 + 1, x1 : x2 + 1] = True
    return Targets(labels, boxes, size, masks)


def read_trial(text: str) -> Trial:
    """Read a trial that ``write_trial`` wrote."""
    content = json.loads(text)
    height, width = content["input_size"]
    categories = [(number, name) for number, name in content["categories"]]
    return Trial(**{**content, "input_size": (height, width), "categories": categories})


def write_trial(trial: Trial) -> str:
    """Write a trial as JSON."""
    return json.dumps(asdict(trial))


def run_from_input() -> None:
    """Read a trial from standard input, and write its stages to standard output."""

    def tell(message: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    trial = read_trial(sys.stdin.read())
    try:
        run_trial(trial, tell)
    except (MemoryError, torch.OutOfMemoryError):
        tell({"kind": "out_of_memory"})
    except RuntimeError as error:
        if not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        tell({"kind": "out_of_memory"})
    except ValueError as error:
        tell({"kind": "error", "message": " ".join(str(error).split())})


if __name__ == "__main__":
    run_from_input()
