"""The training loop."""

from __future__ import annotations

import json
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from boxwright.contracts import ProgressHead
from boxwright.data.loading.sampler import check_batches
from boxwright.detector import Detector
from boxwright.files import write_text
from boxwright.ops.finite import NotFiniteError
from boxwright.structures import Batch
from boxwright.training.batches import leave_out_empty, training_batches
from boxwright.training.best import judge_evaluation, take_latest
from boxwright.training.callbacks import Callback, CheckpointEvent, EvaluationEvent, StepEvent, StopRequest
from boxwright.training.checkpoint import Progress, RunCheckpoints
from boxwright.training.compilation import Compilation, check_compilation
from boxwright.training.determinism import deterministic
from boxwright.training.display import Display
from boxwright.training.distillation import Teacher, steer_distillation
from boxwright.training.distributed import (
    Rank,
    SharedError,
    attempt_together,
    highest,
    init_distributed,
    wait_for_all,
)
from boxwright.training.early_stop import count_evaluation, stop_early
from boxwright.training.failures import KeptBuffers
from boxwright.training.interrupt import Interrupted, Stop, stop_on_interrupt
from boxwright.training.log import RunLog
from boxwright.training.measures import primary_metric, summary_metrics
from boxwright.training.moving_average import MovingAverage
from boxwright.training.norm_momentum import MomentumRamp
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.pace import Pace
from boxwright.training.planning import begin_progress, change_length, resume_pace
from boxwright.training.recovery import Recovery, StateLostError
from boxwright.training.run import RECIPE, WEIGHTS, Run
from boxwright.training.saving import Saving
from boxwright.training.schedule import Schedule
from boxwright.training.sharding import WholeDetector, is_sharded, shard_detector
from boxwright.training.step import StepResult, resolve_precision, train_step
from boxwright.training.sync_norms import sync_norms

GO_ON, STOP, INTERRUPT = range(3)


def run_training(run: Run, *, resume: bool = False) -> Progress:
    """Train to the end of the schedule, or until a callback asks to stop.

    Args:
        run: all that training consists of.
        resume: go on from the run's last checkpoint instead of beginning.

    Raises:
        ValueError: options do not fit each other, the data or the machine, the budget is too small, or the checkpoint
            does not fit, before anything is written; or training has diverged too often, or something else failed in
            the middle, and the message says what is saved.
        Interrupted: Ctrl-C was pressed or the system asked to stop; the state is saved.
    """
    rank = init_distributed(run.options.runtime.device)
    run = leave_out_empty(_with_precision(run, rank))
    # Before anything is written, and before a budget of time is spent on measuring.
    check_batches(len(run.data.records), run.options.batch_size, rank.world_size)
    check_compilation(run.options, rank)
    teacher = Teacher.of(run.detector, rank.device, run.options.runtime.precision)
    run = replace(run, teacher=teacher)
    detector = run.detector.to(rank.device).train()
    if rank.device.type == "cpu":
        # Convolutions on a CPU are fastest with channels last.
        detector.to(memory_format=torch.channels_last)
    # A budget is measured with the detector as it is in one process.
    begun = None if resume else begin_progress(run, rank)
    average = MovingAverage(detector) if run.options.ema_decay else None
    whole = _spread(run, rank, average)
    optimizer = make_optimizer(detector, run.options)
    checkpoints = RunCheckpoints(run.folder, run.recipe, detector, average, optimizer, writes=rank.is_first)
    if begun is None:
        progress = checkpoints.resume(run.note)
        if checkpoints.has_new_length:
            with whole.of(detector) as measured:
                change_length(replace(run, detector=measured), rank, progress)
        pace = resume_pace(run, progress)
        if rank.is_first:
            _write_recipe(run)
    else:
        progress, pace = begun
        checkpoints.begin()
        if rank.is_first:
            _write_beginning(run)
    with deterministic(run, rank.device, progress):
        _Loop(run, rank, checkpoints, progress, pace, whole).go()
    wait_for_all(rank)  # what the first process writes last, all may read
    return progress


def _spread(run: Run, rank: Rank, average: MovingAverage | None) -> WholeDetector:
    """Let the norms and the parameters of the detector be spread over the processes, where the options ask for it."""
    runtime = run.options.runtime
    if rank.world_size > 1 and runtime.sync_norms:
        sync_norms(run.detector, rank.device)
    shards = runtime.sharded and rank.world_size > 1
    whole = WholeDetector(run.detector, rank.device, is_needed=shards)
    if shards:
        for module in (run.detector, *(() if average is None else (average.model,))):
            shard_detector(module, rank.device)
    elif runtime.sharded:
        run.note("train.runtime.sharded has no effect in one process; see train.runtime.processes")
    return whole


def _with_precision(run: Run, rank: Rank) -> Run:
    """Return the run with its precision resolved: it is stored, so that a run resumed elsewhere computes alike."""
    return replace(run, recipe=replace(run.recipe, train=resolve_precision(run.options, rank.device)))


@contextmanager
def _without_strides() -> Iterator[None]:
    """Leave out what torch says where a gradient of a 1 x 1 kernel has other strides than the kernel, as of a view."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        yield


def _write_beginning(run: Run) -> None:
    """Write what the run begins with. An earlier one here, which came to nothing, may have begun otherwise."""
    run.folder.mkdir(parents=True, exist_ok=True)
    _write_recipe(run)
    (run.folder / WEIGHTS).unlink(missing_ok=True)
    if run.initial_weights is not None:
        write_text(run.folder / WEIGHTS, json.dumps(run.initial_weights, indent=1) + "\n")


def _write_recipe(run: Run) -> None:
    """Write the recipe for people to read; a run that goes on may have another length, for one."""
    write_text(run.folder / RECIPE, yaml.safe_dump(run.recipe.to_dict(), sort_keys=False))


class _Loop:
    def __init__(
        self,
        run: Run,
        rank: Rank,
        checkpoints: RunCheckpoints,
        progress: Progress,
        pace: Pace | None,
        whole: WholeDetector,
    ) -> None:
        self.run, self.rank, self.progress, self.pace, self.whole = run, rank, progress, pace, whole
        detector = checkpoints.detector
        self.detector, self.optimizer, self.average = detector, checkpoints.optimizer, checkpoints.average
        self.schedule = Schedule(progress.length, run.options, run.data.epoch_images)
        self.model: nn.Module = detector
        if rank.world_size > 1 and not is_sharded(detector):
            devices = [rank.device.index] if rank.device.type == "cuda" else None
            self.model = nn.parallel.DistributedDataParallel(detector, device_ids=devices)
        self.momentum_ramp = MomentumRamp(detector, is_new=progress.step == 0)
        self.compilation = Compilation(run, progress, rank.world_size)
        self.callbacks: list[Callback] = []
        self.stop = StopRequest()
        self.seconds_before = progress.seconds
        self.buffers = KeptBuffers(detector)
        self.recovery = Recovery(run, rank, detector, self.optimizer, self.average, self.buffers, progress, whole)
        self.saving = Saving(checkpoints, self.recovery, pace, self._tell_file)
        stop_early(run, progress, self.stop)

    def go(self) -> None:
        """Train; callbacks are of the first process alone, and closed whatever happens."""
        run, progress = self.run, self.progress
        with ExitStack() as stack:
            if self.rank.is_first:
                self.callbacks = [RunLog(run.folder, progress.step, run.note)]
                self.callbacks += [Display(progress.steps, progress.step, run.console), *run.callbacks]
            for callback in self.callbacks:
                stack.callback(callback.close)
            stack.callback(self.momentum_ramp.end)
            stack.enter_context(_without_strides())
            interrupt = stack.enter_context(stop_on_interrupt(speaks=run.console is not None and self.rank.is_first))
            try:
                while not self._advance(interrupt):
                    self._go_back()
            except Exception as caught:
                error = caught.error if isinstance(caught, SharedError) else caught
                is_shared = error is not caught
                if interrupt.number is not None:
                    # Sent to the whole group, a signal also ends processes that this one works with.
                    self.saving.save_after(error, is_shared=is_shared)
                    raise Interrupted(interrupt.number) from error
                raise self.saving.explain(error, is_shared=is_shared) from error

    def _advance(self, interrupt: Stop) -> bool:
        """Train to the end; return False where the state was lost before."""
        try:
            self._do_steps(interrupt)
        except StateLostError:
            return False
        return True

    def _go_back(self) -> None:
        self.recovery.go_back()
        for callback in self.callbacks:
            if isinstance(callback, RunLog):
                callback.drop_rows_after(self.progress.step)

    def _do_steps(self, interrupt: Stop) -> None:
        progress = self.progress
        verdict = STOP if self.stop else GO_ON  # of a run that had ended so, and was evaluated and saved
        batches: Iterator[Batch] | None = None
        while progress.evaluation_due or (progress.step < progress.steps and verdict == GO_ON):
            if progress.evaluation_due:
                try:
                    self._evaluate(interrupt)
                except Interrupted:
                    self.saving.save()
                    raise
                verdict, saves = self._agree(interrupt, is_evaluated=True)
            else:
                batches = batches or training_batches(self.run, self.rank, self.schedule, progress)
                before = progress.position(progress.step)
                self._do_step(batches)
                verdict, saves = self._agree(interrupt, is_evaluated=False)
                ends = verdict == STOP or progress.step >= progress.steps
                progress.evaluation_due = ends or self._evaluates_since(before)
            if verdict == INTERRUPT and interrupt.number is not None:
                self.saving.save()
                raise Interrupted(interrupt.number)
            if saves and progress.step > self.saving.saved_step and not progress.evaluation_due:
                self.saving.save()

    def _agree(self, interrupt: Stop, *, is_evaluated: bool) -> tuple[int, bool]:
        """Decide how to go on, if it is time to save, and how many steps a budget leaves, in all processes alike.

        Args:
            interrupt: what the system asked for.
            is_evaluated: after an evaluation, not after a step.
        """
        wish = INTERRUPT if interrupt.asked else STOP if self.stop else GO_ON
        progress = self.progress
        left = self._count_steps_left(is_evaluated) if wish == GO_ON and self.rank.is_first else -1
        verdict, left, saves = map(int, highest(self.rank, wish, left, self.saving.is_due))
        if left >= 0:
            progress.plan_anew(left)
        if verdict == INTERRUPT and interrupt.number is None:
            interrupt.number = signal.SIGTERM  # heard by another process
        return verdict, bool(saves)

    def _count_steps_left(self, is_evaluated: bool) -> int:
        """Count the steps that a budget leaves; -1 where the plan is to stay."""
        progress, now = self.progress, time.monotonic()
        if self.pace is None:
            return -1
        if progress.step < progress.steps:
            done = progress.position(progress.step) * progress.evaluations // progress.length
            # The last one is always to come, also after one that came too early.
            left = max(progress.evaluations - int(done), min(1, progress.evaluations))
            return self.pace.count_steps_left(now, left)
        return self.pace.count_more_steps(now, progress.evaluations) if is_evaluated else -1

    def _evaluates_since(self, before: int | float) -> bool:
        """Tell if one of the evaluations on the way comes now."""
        progress = self.progress
        now = progress.position(progress.step)
        comes = self.schedule.evaluates_between(before, now, progress.evaluations)
        # The first process knows what an evaluation takes.
        affords = self.pace is None or self.pace.affords_evaluation()
        return comes and highest(self.rank, affords and self.rank.is_first)[0] > 0

    def _do_step(self, batches: Iterator[Batch]) -> None:
        progress, start = self.progress, time.monotonic()
        batch = self._next_batch(batches)
        result, lr = self._step(progress.step, batch)
        progress.step += 1
        progress.seconds = self._seconds()
        duration = time.monotonic() - start
        if self.pace is not None and not self.compilation.compiled_last_step:
            self.pace.add_step(duration)
        if result is not None:
            self._tell_step(result, lr, duration, batch)

    def _next_batch(self, batches: Iterator[Batch]) -> Batch:
        """Read this process's images of a step; where one cannot, all end here, where the state is whole."""
        return attempt_together(self.rank, lambda: next(batches))

    def _step(self, step: int, batch: Batch) -> tuple[StepResult | None, float]:
        """Do a step, or leave it out where its numbers are not finite: then there is no result."""
        # Noise is a function of seed, step and process: a resumed run draws what the unbroken one drew.
        noise_seed = hash((self.run.options.runtime.seed, step, self.rank.index)) % 2**63
        torch.manual_seed(noise_seed)
        position = self.progress.position(step)
        lr = set_lr(self.optimizer, self.schedule.lr_factor(position))
        if isinstance(self.detector.head, ProgressHead):
            passport = self.detector.passport
            is_from_scratch = passport is None or passport.is_from_scratch
            self.detector.head.set_progress(position / self.schedule.steps, step if is_from_scratch else None)
        self.buffers.keep()
        self.momentum_ramp.update()
        try:
            with self.compilation.step(batch.images.shape, is_ramp_over=self.momentum_ramp.is_over):
                trained = self.detector, self.model, self.optimizer
                result = train_step(*trained, batch, self.run.options, self.rank.device, self.run.teacher)
        except NotFiniteError as error:
            self.recovery.recover(error, batch, step, noise_seed)
            return None, lr
        self.buffers.forget()
        self._steer(step, position)
        if self.average is not None:
            self.average.update(self.detector, self.schedule.ema_decay(step))
        return result, lr

    def _steer(self, step: int, position: int | float) -> None:
        """Let the weight of distillation follow from the gradients of a pass over the data."""
        per_pass = self.run.data.epoch_images / self.run.options.batch_size
        ends_epoch = (step + 1) // per_pass > step // per_pass
        is_late = position + 1 - per_pass > self.schedule.no_aug_from - 0.5
        steer_distillation(self.detector, ends_epoch=ends_epoch, is_late=is_late)

    def _tell_step(self, result: StepResult, lr: float, duration: float, batch: Batch) -> None:
        progress, images = self.progress, self.run.options.batch_size
        event = StepEvent(
            **self._state(),
            epoch=progress.step * images / self.run.data.epoch_images,
            loss=result.loss,
            losses=result.losses,
            lr=lr,
            gradient_norm=result.gradient_norm,
            images_per_second=images / duration,
            image_size=batch.images.shape[-1],
            seconds_left=self._seconds_left(),
        )
        self._tell(lambda callback: callback.on_step(event))

    def _seconds_left(self) -> float:
        progress = self.progress
        if self.pace is not None:
            return max(0.0, self.pace.deadline - time.monotonic())
        return progress.seconds / progress.step * (progress.steps - progress.step)

    def _evaluate(self, interrupt: Stop) -> None:
        """Evaluate, in all processes, and save, in the first."""
        progress, run = self.progress, self.run
        if run.evaluate is None or progress.evaluations == 0:
            progress.evaluation_due = False
            take_latest(progress)
            self.saving.save(best=True)
            return
        evaluated = self.average.model if self.average is not None else self.detector
        assert isinstance(evaluated, Detector)
        self.recovery.check_state()
        start = time.monotonic()
        # Where several processes wait for each other, none may leave.
        leaving = interrupt.at_once() if self.rank.world_size == 1 else nullcontext()
        with self.whole.of(evaluated) as detector, leaving:
            metrics = run.evaluate(detector)
        progress.evaluation_due = False
        progress.seconds, progress.evaluation_seconds = self._seconds(), time.monotonic() - start
        if self.pace is not None:
            self.pace.add_evaluation(progress.evaluation_seconds)
        if self.detector.passport is not None:
            self.detector.passport = replace(self.detector.passport, metrics=summary_metrics(metrics))
        name, value = primary_metric(metrics)
        count_evaluation(progress, value)
        stop_early(run, progress, self.stop)
        verdict = judge_evaluation(progress, name, value)
        event = EvaluationEvent(**self._state(), metrics=metrics, measure=name, value=value, best=verdict.best)
        self._tell(lambda callback: callback.on_evaluation(event))
        if verdict.line is not None:
            run.note(verdict.line)
        self.saving.save(best=verdict.best)

    def _tell_file(self, path: Path) -> None:
        event = CheckpointEvent(**self._state(), path=path)
        self._tell(lambda callback: callback.on_checkpoint(event))

    def _tell(self, tell: Callable[[Callback], None]) -> None:
        for callback in self.callbacks:
            tell(callback)

    def _state(self) -> dict[str, Any]:
        progress = self.progress
        return {"step": progress.step, "steps": progress.steps, "seconds": progress.seconds, "stop": self.stop}

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.run.began
