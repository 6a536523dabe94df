"""The training loop."""

from __future__ import annotations

import json
import time
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import Any

import torch
import yaml
from torch import nn

from boxwright.compose.train_options import seconds
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training import checkpoint
from boxwright.training.batches import training_batches
from boxwright.training.checkpoint import BEST, LAST, Progress
from boxwright.training.display import Display
from boxwright.training.distributed import Rank, choose_precision, init_distributed
from boxwright.training.interrupt import Interrupted, stop_on_interrupt
from boxwright.training.log import RunLog
from boxwright.training.measures import primary_metric
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.planning import plan_run
from boxwright.training.run import RECIPE, WEIGHTS, Run
from boxwright.training.schedule import Schedule
from boxwright.training.step import StepResult, train_step

SAVE_INTERVAL = 300.0
"""Seconds between checkpoints, evaluations aside."""
LOG_INTERVAL = 1.0
"""Seconds between rows of the log, at least."""


def train(run: Run, *, resume: bool = False) -> Progress:
    """Train to the end of the schedule.

    Args:
        run: what and how.
        resume: go on from the run's last checkpoint instead of beginning.

    Raises:
        ValueError: training has diverged, the budget is too small, or the checkpoint does not fit.
        Interrupted: the user pressed Ctrl-C; the state is saved.
    """
    rank = init_distributed(run.options.runtime.device)
    # What "auto" comes to here is stored, so that a run resumed elsewhere computes as it began.
    precision = choose_precision(run.options.runtime.precision, rank.device)
    run = replace(
        run,
        options=replace(run.options, runtime=replace(run.options.runtime, precision=precision)),
        recipe=_with_precision(run.recipe, precision),
    )
    detector = run.detector.to(rank.device).train()
    if rank.device.type == "cpu":
        # Convolutions on a CPU are fastest with channels last.
        detector.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, run.options)
    average = MovingAverage(detector) if run.options.ema_decay else None
    if resume:
        progress = checkpoint.resume(run.folder / LAST, detector, average, optimizer)
    else:
        fixed = plan_run(run, rank)
        progress = Progress(step=0, steps=fixed.steps, evaluations=fixed.evaluations)
        if rank.is_first:
            _write_beginning(run)
    return _Loop(run, rank, detector, optimizer, average, progress).go()


def _with_precision(recipe: dict[str, Any], precision: str) -> dict[str, Any]:
    runtime = {**recipe["train"]["runtime"], "precision": precision}
    return {**recipe, "train": {**recipe["train"], "runtime": runtime}}


def _write_beginning(run: Run) -> None:
    """What the run begins with. An earlier one here, which came to nothing, may have begun otherwise."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / RECIPE).write_text(yaml.safe_dump(run.recipe, sort_keys=False))
    (run.folder / WEIGHTS).unlink(missing_ok=True)
    if run.backbone_weights is not None:
        (run.folder / WEIGHTS).write_text(json.dumps(run.backbone_weights, indent=1) + "\n")


class _Loop:
    def __init__(
        self,
        run: Run,
        rank: Rank,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        progress: Progress,
    ) -> None:
        self.run, self.rank, self.progress = run, rank, progress
        self.detector, self.optimizer, self.average = detector, optimizer, average
        self.schedule = Schedule(progress.steps, run.options, len(run.data.records))
        self.model: nn.Module = detector
        if rank.world_size > 1:
            devices = [rank.device.index] if rank.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(detector, device_ids=devices)
        self.session_start = time.monotonic()
        self.seconds_before = progress.seconds
        self.first_step = progress.step
        self.evaluating = self.last_evaluation = 0.0

    def go(self) -> Progress:
        log = RunLog(self.run.folder, self.progress.step) if self.rank.is_first else None
        console = self.run.console if self.rank.is_first else None
        with (
            closing(log) if log is not None else nullcontext(),
            Display(self.progress.steps, self.progress.step, console) as display,
        ):
            self._steps(log, display)
        return self.progress

    def _steps(self, log: RunLog | None, display: Display) -> None:
        run, progress = self.run, self.progress
        saved = logged = time.monotonic()
        with stop_on_interrupt() as stop:
            batches = training_batches(run, self.rank, self.schedule, progress.step)
            for step in range(progress.step, progress.steps):
                start = time.monotonic()
                batch = next(batches)
                result, lr = self._step(step, batch)
                now = time.monotonic()
                progress.step = step + 1
                progress.seconds = self._seconds()
                rate = run.options.batch_size / (now - start)
                left = progress.seconds / progress.step * (progress.steps - progress.step)
                display.step(progress.step, result, lr, rate, left)
                if log is not None and (now - logged >= LOG_INTERVAL or progress.step in (1, progress.steps)):
                    logged = now
                    log.write("train", self._row(result, lr, rate, batch))
                # Asked once: Ctrl-C between saving and stopping must not stop without saving.
                stopping = stop.asked and progress.step < progress.steps
                if self.schedule.evaluates_after(step, progress.evaluations) and self._affords_evaluation():
                    self._evaluate(log, display)
                    saved = time.monotonic()
                elif stopping or now - saved > SAVE_INTERVAL:
                    self._save(LAST)
                    saved = time.monotonic()
                if stopping:
                    raise Interrupted

    def _step(self, step: int, batch: Batch) -> tuple[StepResult, float]:
        # Noise is a function of seed, step and process: a resumed run draws what the unbroken one drew.
        torch.manual_seed(hash((self.run.options.runtime.seed, step, self.rank.index)) % 2**63)
        lr = set_lr(self.optimizer, self.schedule.lr_factor(step))
        result = train_step(self.detector, self.model, self.optimizer, batch, self.run.options, self.rank.device)
        if self.average is not None:
            self.average.update(self.detector, self.schedule.ema_decay(step))
        return result, lr

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
        if not self.rank.is_first:
            return
        progress, run = self.progress, self.run
        if run.evaluate is None:
            self._save(LAST)
            self._save(BEST)
            return
        evaluated = self.average.model if self.average is not None else self.detector
        assert isinstance(evaluated, Detector)
        start = time.monotonic()
        metrics = run.evaluate(evaluated)
        self.last_evaluation = time.monotonic() - start
        self.evaluating += self.last_evaluation
        progress.seconds = self._seconds()
        name, value = primary_metric(metrics)
        # Without any object to find AP is -1, never better than before; a run has its best all the same.
        best = value > progress.best or not (run.folder / BEST).is_file()
        if best:
            progress.measure, progress.best = name, value
        if log is not None:
            log.write("eval", {"step": progress.step, **metrics, "seconds": progress.seconds})
        display.evaluation(progress.step, metrics, best=best)
        self._save(LAST)
        if best:
            self._save(BEST)

    def _save(self, name: str) -> None:
        if self.rank.is_first:
            checkpoint.save(
                self.run.folder / name,
                self.detector,
                self.average,
                self.run.recipe,
                optimizer=self.optimizer if name == LAST else None,
                progress=self.progress,
            )

    def _affords_evaluation(self) -> bool:
        """Whether steps and last evaluation still end within the budget if one is made now; the last one always is.

        The steps are fixed. Where the machine has become slower since they were, evaluations on the way give way.
        """
        left = self.progress.steps - self.progress.step
        if self.run.options.budget is None or self.first_step > 0 or left == 0:
            return True
        now = time.monotonic()
        per_step = (now - self.session_start - self.evaluating) / self.progress.step
        end = now + left * per_step + 2 * self.last_evaluation
        return end <= self.run.began + seconds(self.run.options.budget)

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.session_start
