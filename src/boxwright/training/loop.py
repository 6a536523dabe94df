"""The training loop."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from rich.console import Console
from torch import nn

from boxwright.data.augment import Augmentation
from boxwright.data.loader import train_loader
from boxwright.data.records import DetectionData
from boxwright.data.sampler import BatchSampler
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training import checkpoint
from boxwright.training.budget import Plan, measure_step, plan
from boxwright.training.checkpoint import BEST, LAST, Progress
from boxwright.training.display import Display
from boxwright.training.distributed import Process, join
from boxwright.training.log import RunLog
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.options import TrainOptions, seconds, training_sizes
from boxwright.training.schedule import Schedule
from boxwright.training.step import StepResult, train_step

SAVE_INTERVAL = 300.0
"""Seconds between checkpoints, evaluations aside."""
LOG_INTERVAL = 1.0
"""Seconds between rows of the log, at least."""
CACHE_BYTES = 2 * 2**30
"""Memory for decoded pictures, over all processes that read them."""


class Evaluate(Protocol):
    """Measures a detector on the validation split."""

    num_pictures: int

    def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        """Metrics by name, among them ``AP``; on the first ``limit`` pictures only where given."""
        ...


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; its state is saved."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All that a training run consists of.

    Args:
        detector: what is trained; fresh, or with the weights to start from.
        recipe: the resolved recipe that it was built from.
        data: what it is trained on.
        augmentation: what happens to pictures on the way.
        options: how it is trained.
        folder: where checkpoints and the log go.
        evaluate: measures it on the validation split; None where there is none.
        console: where progress is shown; silent where None.
        began: ``time.monotonic()`` when the user's budget began to run.
    """

    detector: Detector
    recipe: dict[str, Any]
    data: DetectionData
    augmentation: Augmentation
    options: TrainOptions
    folder: Path
    evaluate: Evaluate | None = None
    console: Console | None = None
    began: float = 0.0


def train(run: Run, *, resume: bool = False) -> Progress:
    """Train to the end of the schedule.

    Args:
        run: what and how.
        resume: go on from the run's last checkpoint instead of beginning.

    Raises:
        ValueError: training has diverged, or the checkpoint does not fit.
        Interrupted: the user pressed Ctrl-C; the state is saved.
    """
    process = join(run.options.device)
    detector = run.detector.to(process.device).train()
    if process.device.type == "cpu":
        # Convolutions on a CPU are fastest with channels last.
        detector.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, run.options)
    average = MovingAverage(detector) if run.options.ema else None
    if resume:
        progress = checkpoint.resume(run.folder / LAST, detector, average, optimizer)
    else:
        fixed = _plan(run, process)
        progress = Progress(step=0, steps=fixed.steps, evaluations=fixed.evaluations)
    return _Loop(run, process, detector, optimizer, average, progress).go()


class _Loop:
    def __init__(
        self,
        run: Run,
        process: Process,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        progress: Progress,
    ) -> None:
        self.run, self.process, self.progress = run, process, progress
        self.detector, self.optimizer, self.average = detector, optimizer, average
        self.schedule = Schedule(progress.steps, run.options)
        self.model: nn.Module = detector
        if process.processes > 1:
            devices = [process.device.index] if process.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(detector, device_ids=devices)
        self.session_start = time.monotonic()
        self.seconds_before = progress.seconds

    def go(self) -> Progress:
        run, progress = self.run, self.progress
        log = RunLog(run.folder, progress.step) if self.process.is_first else None
        console = run.console if self.process.is_first else None
        saved = logged = time.monotonic()
        with Display(progress.steps, progress.step, console) as display, _stop_on_interrupt() as stop:
            batches = iter(_loader(run, self.process, self.schedule, progress.step))
            for step in range(progress.step, progress.steps):
                start = time.monotonic()
                result, lr, batch = self._step(step, next(batches))
                now = time.monotonic()
                progress.step = step + 1
                progress.seconds = self.seconds_before + now - self.session_start
                rate = run.options.batch_size / (now - start)
                left = progress.seconds / progress.step * (progress.steps - progress.step)
                display.step(progress.step, result, lr, rate, left)
                if log is not None and (now - logged >= LOG_INTERVAL or progress.step in (1, progress.steps)):
                    logged = now
                    log.write("train", self._row(result, lr, rate, batch))
                if self.schedule.evaluates_after(step, progress.evaluations):
                    self._evaluate(log, display)
                    saved = time.monotonic()
                elif stop.asked or now - saved > SAVE_INTERVAL:
                    self._save(LAST)
                    saved = time.monotonic()
                if stop.asked and progress.step < progress.steps:
                    raise Interrupted
        if log is not None:
            log.close()
        return progress

    def _step(self, step: int, batch: Batch) -> tuple[StepResult, float, Batch]:
        # Noise is a function of seed, step and process: a resumed run draws what the unbroken one drew.
        torch.manual_seed(hash((self.run.options.seed, step, self.process.rank)) % 2**63)
        lr = set_lr(self.optimizer, self.schedule.lr_factor(step))
        if self.process.device.type == "cpu":
            batch = batch._replace(images=batch.images.contiguous(memory_format=torch.channels_last))
        result = train_step(self.detector, self.model, self.optimizer, batch, self.run.options, self.process.device)
        if self.average is not None:
            self.average.update(self.detector, self.schedule.ema_decay(step))
        return result, lr, batch

    def _row(self, result: StepResult, lr: float, rate: float, batch: Batch) -> dict[str, Any]:
        samples = self.progress.step * self.run.options.batch_size
        return {
            "step": self.progress.step,
            "epoch": round(samples / len(self.run.data.records), 3),
            "loss": result.loss,
            "losses": result.losses,
            "lr": lr,
            "gradient_norm": result.gradient_norm,
            "images_per_second": rate,
            "image_size": batch.images.shape[-1],
            "seconds": self.progress.seconds,
        }

    def _evaluate(self, log: RunLog | None, display: Display) -> None:
        if not self.process.is_first:
            return
        progress, run = self.progress, self.run
        if run.evaluate is None:
            self._save(LAST)
            self._save(BEST)
            return
        evaluated = self.average.model if self.average is not None else self.detector
        assert isinstance(evaluated, Detector)
        metrics = run.evaluate(evaluated)
        progress.seconds = self.seconds_before + time.monotonic() - self.session_start
        best = metrics["AP"] > progress.best_ap
        if best:
            progress.best_ap = metrics["AP"]
        if log is not None:
            log.write("eval", {"step": progress.step, **metrics, "seconds": progress.seconds})
        display.say(
            f"step {progress.step}/{progress.steps}  AP {metrics['AP']:.3f}  AP50 {metrics['AP50']:.3f}"
            + ("  best so far" if best else "")
        )
        self._save(LAST)
        if best:
            self._save(BEST)

    def _save(self, name: str) -> None:
        if self.process.is_first:
            checkpoint.save(
                self.run.folder / name,
                self.detector,
                self.average,
                self.run.recipe,
                optimizer=self.optimizer if name == LAST else None,
                progress=self.progress,
            )


def _plan(run: Run, process: Process) -> Plan:
    options = run.options
    if options.steps is not None:
        return Plan(options.steps, options.evaluations)
    if options.budget is None:
        steps = -(-len(run.data.records) * options.epochs // options.batch_size)
        return Plan(steps, options.evaluations)
    if process.processes > 1:
        raise ValueError("train.budget measures one process; with several, give train.epochs or train.steps")
    allowed = seconds(options.budget)
    sizes = training_sizes(run.detector.input_format.image_size, options.multi_scale)

    def batches(size: int) -> Iterator[Batch]:
        sampler = BatchSampler(
            seed=options.seed,
            num_samples=len(run.data.records),
            batch_size=options.batch_size,
            num_steps=1000,
            image_sizes=(size,),
        )
        return iter(_loader_of(run, sampler, process))

    per_step = measure_step(run.detector, batches, sizes, options, process.device, limit=0.03 * allowed)
    per_evaluation = 0.0
    if run.evaluate is not None:
        pictures = min(8, run.evaluate.num_pictures)
        start = time.monotonic()
        run.evaluate(run.detector, limit=pictures)
        per_evaluation = (time.monotonic() - start) * run.evaluate.num_pictures / max(1, pictures)
    fixed = plan(allowed - (time.monotonic() - run.began), per_step, per_evaluation, options.evaluations)
    if run.console is not None:
        run.console.print(
            f"{per_step:.2f} s a step: {fixed.steps} steps and {fixed.evaluations} evaluations fit into "
            f"{options.budget}",
            highlight=False,
        )
    return fixed


def _loader(run: Run, process: Process, schedule: Schedule, start_step: int) -> Any:
    sampler = BatchSampler(
        seed=run.options.seed,
        num_samples=len(run.data.records),
        batch_size=run.options.batch_size,
        num_steps=schedule.steps,
        image_sizes=training_sizes(run.detector.input_format.image_size, run.options.multi_scale),
        start_step=start_step,
        light_from_step=schedule.light_from,
        rank=process.rank,
        world_size=process.processes,
    )
    return _loader_of(run, sampler, process)


def _loader_of(run: Run, sampler: BatchSampler, process: Process) -> Any:
    on_gpu = process.device.type == "cuda"
    workers = run.options.workers
    if workers is None:
        # Beside training on a CPU, a reading process only takes cores away from it.
        workers = min(8, torch.get_num_threads()) if on_gpu else 0
    return train_loader(
        run.data,
        augmentation=run.augmentation,
        input_format=run.detector.input_format,
        sampler=sampler,
        num_workers=workers,
        cache_bytes=CACHE_BYTES // max(1, workers),
        pin_memory=on_gpu,
    )


class _Stop:
    asked = False


@contextmanager
def _stop_on_interrupt() -> Iterator[_Stop]:
    """The first Ctrl-C asks the loop to stop after its step; the second one ends it at once."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        previous = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: Ctrl-C is somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
