"""The training loop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
import yaml
from torch import nn

from boxwright.checkpoints import BEST, LAST, has_best
from boxwright.compose.train_options import seconds
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training import checkpoint
from boxwright.training.batches import leave_out_empty, training_batches
from boxwright.training.callbacks import Callback, CheckpointEvent, EvaluationEvent, StepEvent, StopRequest
from boxwright.training.checkpoint import Progress
from boxwright.training.display import Display
from boxwright.training.distributed import Rank, choose_precision, highest, init_distributed, wait_for_all
from boxwright.training.interrupt import Interrupted, stop_on_interrupt
from boxwright.training.log import RunLog
from boxwright.training.measures import primary_metric, summary_metrics
from boxwright.training.moving_average import MovingAverage
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.planning import plan_run
from boxwright.training.run import RECIPE, WEIGHTS, Run
from boxwright.training.schedule import Schedule
from boxwright.training.step import StepResult, train_step
from boxwright.training.sync_norms import sync_norms

SAVE_INTERVAL = 300.0
"""Seconds between checkpoints, evaluations aside."""

GO_ON, STOP, INTERRUPT = range(3)


def run_training(run: Run, *, resume: bool = False) -> Progress:
    """Train to the end of the schedule, or until a callback asks to stop.

    Args:
        run: all that training consists of.
        resume: go on from the run's last checkpoint instead of beginning.

    Raises:
        ValueError: training has diverged, the budget is too small, or the checkpoint does not fit.
        Interrupted: the user pressed Ctrl-C; the state is saved.
    """
    rank = init_distributed(run.options.runtime.device)
    run = leave_out_empty(_with_precision(run, rank))
    detector = run.detector.to(rank.device).train()
    if rank.device.type == "cpu":
        # Convolutions on a CPU are fastest with channels last.
        detector.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, run.options)
    average = MovingAverage(detector) if run.options.ema_decay else None
    if resume:
        progress = checkpoint.resume_progress(run.folder / LAST, detector, average, optimizer)
    else:
        plan = plan_run(run, rank)
        progress = Progress(step=0, steps=plan.steps, evaluations=plan.evaluations)
        if rank.is_first:
            _write_beginning(run)
    _Loop(run, rank, detector, optimizer, average, progress).go()
    wait_for_all(rank)  # what the first process writes last, all may read
    return progress


def _with_precision(run: Run, rank: Rank) -> Run:
    """The run with the precision that "auto" comes to here: stored, so that a run resumed elsewhere computes alike."""
    precision = choose_precision(run.options.runtime.precision, rank.device)
    options = replace(run.options, runtime=replace(run.options.runtime, precision=precision))
    return replace(run, recipe=replace(run.recipe, train=options))


def _write_beginning(run: Run) -> None:
    """Write what the run begins with. An earlier one here, which came to nothing, may have begun otherwise."""
    run.folder.mkdir(parents=True, exist_ok=True)
    (run.folder / RECIPE).write_text(yaml.safe_dump(run.recipe.to_dict(), sort_keys=False))
    (run.folder / WEIGHTS).unlink(missing_ok=True)
    if run.initial_weights is not None:
        (run.folder / WEIGHTS).write_text(json.dumps(run.initial_weights, indent=1) + "\n")


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
            if run.options.runtime.sync_norms:
                sync_norms(detector, rank.device)
            devices = [rank.device.index] if rank.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(detector, device_ids=devices)
        self.callbacks: list[Callback] = []
        self.stop = StopRequest()
        self.session_start = time.monotonic()
        self.seconds_before = progress.seconds
        self.first_step = progress.step
        self.evaluating = self.last_evaluation = 0.0

    def go(self) -> None:
        """Train; callbacks are of the first process alone, and closed whatever happens."""
        run, progress = self.run, self.progress
        with ExitStack() as stack:
            if self.rank.is_first:
                self.callbacks = [RunLog(run.folder, progress.step)]
                self.callbacks += [Display(progress.steps, progress.step, run.console), *run.callbacks]
            for callback in self.callbacks:
                stack.callback(callback.close)
            self._steps()

    def _steps(self) -> None:
        progress = self.progress
        saved = time.monotonic()
        with stop_on_interrupt() as interrupt:
            batches = training_batches(self.run, self.rank, self.schedule, progress.step)
            for step in range(progress.step, progress.steps):
                start = time.monotonic()
                batch = next(batches)
                result, lr = self._step(step, batch)
                progress.step = step + 1
                progress.seconds = self._seconds()
                self._tell_step(result, lr, time.monotonic() - start, batch)
                evaluates = self.schedule.evaluates_after(step, progress.evaluations)
                # All of them, or none: each measures a part of the images.
                evaluates = evaluates and bool(highest(int(self._affords_evaluation()), self.rank))
                if evaluates:
                    self._evaluate()
                # Asked once: Ctrl-C between saving and stopping must not stop without saving.
                verdict = self._verdict(interrupt.asked)
                if verdict == STOP and not evaluates:
                    self._evaluate()
                elif not evaluates and (verdict == INTERRUPT or time.monotonic() - saved > SAVE_INTERVAL):
                    self._save(LAST)
                elif not evaluates:
                    continue
                saved = time.monotonic()
                if verdict == INTERRUPT:
                    raise Interrupted
                if verdict == STOP:
                    break

    def _verdict(self, is_interrupted: bool) -> int:
        """Decide how to go on after a step, in all processes alike; nothing can stop the last one."""
        wish = INTERRUPT if is_interrupted else STOP if self.stop else GO_ON
        return GO_ON if self.progress.step == self.progress.steps else highest(wish, self.rank)

    def _step(self, step: int, batch: Batch) -> tuple[StepResult, float]:
        # Noise is a function of seed, step and process: a resumed run draws what the unbroken one drew.
        torch.manual_seed(hash((self.run.options.runtime.seed, step, self.rank.index)) % 2**63)
        lr = set_lr(self.optimizer, self.schedule.lr_factor(step))
        result = train_step(self.detector, self.model, self.optimizer, batch, self.run.options, self.rank.device)
        if self.average is not None:
            self.average.update(self.detector, self.schedule.ema_decay(step))
        return result, lr

    def _tell_step(self, result: StepResult, lr: float, duration: float, batch: Batch) -> None:
        progress, images = self.progress, self.run.options.batch_size
        event = StepEvent(
            **self._state(),
            epoch=progress.step * images / len(self.run.data.records),
            loss=result.loss,
            losses=result.losses,
            lr=lr,
            gradient_norm=result.gradient_norm,
            images_per_second=images / duration,
            image_size=batch.images.shape[-1],
            seconds_left=progress.seconds / progress.step * (progress.steps - progress.step),
        )
        self._tell(lambda callback: callback.on_step(event))

    def _evaluate(self) -> None:
        """Evaluate, in all processes, and save, in the first."""
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
        if not self.rank.is_first:
            return
        if self.detector.passport is not None:
            self.detector.passport = replace(self.detector.passport, metrics=summary_metrics(metrics))
        name, value = primary_metric(metrics)
        # Without any object AP is -1, never better than before; a run has its best all the same.
        best = value > progress.best or not has_best(run.folder)
        if best:
            progress.measure, progress.best = name, value
        event = EvaluationEvent(**self._state(), metrics=metrics, measure=name, value=value, best=best)
        self._tell(lambda callback: callback.on_evaluation(event))
        self._save(LAST)
        if best:
            self._save(BEST)

    def _save(self, name: str) -> None:
        if not self.rank.is_first:
            return
        checkpoint.save_progress(
            self.run.folder / name,
            self.detector,
            self.average,
            self.run.recipe,
            optimizer=self.optimizer if name == LAST else None,
            progress=self.progress,
        )
        event = CheckpointEvent(**self._state(), path=self.run.folder / name)
        self._tell(lambda callback: callback.on_checkpoint(event))

    def _tell(self, tell: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            tell(callback)

    def _state(self) -> dict[str, Any]:
        progress = self.progress
        return {"step": progress.step, "steps": progress.steps, "seconds": progress.seconds, "stop": self.stop}

    def _affords_evaluation(self) -> bool:
        """Tell if steps and last evaluation still end within the budget if one is made now; the last one always is.

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
