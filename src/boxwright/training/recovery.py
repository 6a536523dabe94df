"""Going on after a step whose loss or gradient was not finite."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from boxwright.checkpoints import LAST, read_last
from boxwright.detector import Detector
from boxwright.ops.finite import NotFiniteError
from boxwright.structures import Batch
from boxwright.training.checkpoint import Progress, load_progress
from boxwright.training.distributed import Rank, highest
from boxwright.training.failed_step import FAILED_STEP, FailedStep, write_failed_step
from boxwright.training.failures import KeptBuffers
from boxwright.training.moving_average import MovingAverage
from boxwright.training.overflow import diagnose_step
from boxwright.training.partition import see_whole_step
from boxwright.training.run import Run
from boxwright.training.sharding import WholeDetector, is_sharded, local_shard

MAX_FAILED_STEPS = 3
"""Steps that a run may leave out, and times that it may go back to its last checkpoint, together."""

NOT_REPEATED = "repeated, the same step has finite numbers, so that it is the machine or a library that fails"


class StateLostError(Exception):
    """The weights, their average or the optimizer's moments are not finite any more; checkpoints are."""


class Recovery:
    """The way on after a step whose loss or gradient is not finite.

    The weights are those from before the step, which is left out: the run then equals one that has done nothing at this
    step. The step is repeated once, to find the first module whose numbers are not finite, and written into the run's
    folder for ``boxwright replay``.

    Args:
        run: all that training consists of.
        rank: of this process.
        detector: in training.
        optimizer: of its parameters.
        average: of its weights, or None.
        buffers: of the detector, as they were before the step.
        progress: of the run; counts the steps that failed.
        whole: makes a sharded detector whole, with which each process repeats its part of the step.
    """

    def __init__(
        self,
        run: Run,
        rank: Rank,
        detector: Detector,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        buffers: KeptBuffers,
        progress: Progress,
        whole: WholeDetector,
    ) -> None:
        self.run, self.rank, self.progress, self.whole = run, rank, progress, whole
        self.detector, self.optimizer, self.average, self.buffers = detector, optimizer, average, buffers
        # A part may hold infinities on purpose.
        self._unchecked = {name for name, x in detector.state_dict().items() if not _is_finite([local_shard(x)])}

    def recover(self, error: NotFiniteError, batch: Batch, step: int, noise_seed: int) -> None:
        """Restore the state from before a step, and report what failed; every process must call it.

        Args:
            error: of the step.
            batch: this process's images.
            step: steps that were done before it.
            noise_seed: that torch was seeded with for it.

        Raises:
            ValueError: the run has failed too often.
            StateLostError: there is no finite state to go on from but that of a checkpoint.
        """
        options, device = self.run.options, self.rank.device
        self.buffers.restore()
        self.buffers.keep()
        batch, totals = see_whole_step(self.detector, batch, options.batches.accumulate_steps, device)
        with self.whole.of(self.detector) as detector:
            buffers = KeptBuffers(detector)
            buffers.keep()
            teacher = self.run.teacher
            diagnosis = diagnose_step(
                detector, batch, options, device, totals=totals, noise_seed=noise_seed, teacher=teacher
            )
            buffers.restore()
            reason = None if diagnosis.overflow is None else diagnosis.overflow.describe()
            writer, failure = self._choose_process(reason)
            if writer == self.rank.index:
                failed = FailedStep(
                    step=step,
                    noise_seed=noise_seed,
                    batch=batch,
                    totals=totals,
                    weights=detector.state_dict(),
                    recipe=self.run.recipe.to_dict(),
                    categories=detector.categories,
                    device=device.type,
                    threads=torch.get_num_threads(),
                    failure=failure,
                )
                self._write(failed)
        self.buffers.restore()
        self.check_state()
        self.progress.failed_steps += 1
        self._report(error, failure, step)

    def go_back(self) -> None:
        """Load the run's last checkpoint, after ``StateLostError``; the time spent and what failed still count.

        Raises:
            ValueError: there is none, the run has failed too often, or several processes train.
        """
        progress, path = self.progress, self.run.folder / LAST
        begin = "train again with a lower train.lr, or a longer train.schedule.warmup_steps"
        lost = f"after step {progress.step}, weights or moments of the optimizer are not finite"
        if progress.failed_steps >= MAX_FAILED_STEPS or not path.is_file():
            raise ValueError(f"training has diverged: {lost}; {begin}")
        if self.rank.world_size > 1:
            raise ValueError(
                f"training has diverged: {lost}; {path} is from before: --resume goes on from it; or {begin}"
            )
        count, seconds = progress.failed_steps + 1, progress.seconds
        stored = load_progress(read_last(self.run.folder, self.run.note), self.detector, self.average, self.optimizer)
        vars(progress).update({**vars(stored), "failed_steps": count, "seconds": seconds})
        self._announce(f"{lost}: going back to step {progress.step} ({count} of at most {MAX_FAILED_STEPS})")

    def check_state(self) -> None:
        """Raise ``StateLostError`` unless everything that the next step depends on is finite.

        Where the detector is sharded, in all processes, each of which must ask.
        """
        moments = (x for state in self.optimizer.state.values() for x in state.values() if isinstance(x, Tensor))
        averages = () if self.average is None else self.average.model.state_dict().items()
        weights = (x for name, x in (*self.detector.state_dict().items(), *averages) if name not in self._unchecked)
        is_lost = not (_is_finite(map(local_shard, weights)) and _is_finite(map(local_shard, moments)))
        if is_sharded(self.detector):
            is_lost = highest(self.rank, is_lost)[0] > 0
        if is_lost:
            raise StateLostError

    def _choose_process(self, reason: str | None) -> tuple[int, str]:
        """Agree on the first process that has found the reason, and on what it has found."""
        findings: list[str | None] = [reason] * self.rank.world_size
        if self.rank.world_size > 1:
            dist.all_gather_object(findings, reason)
        return next(((i, text) for i, text in enumerate(findings) if text is not None), (0, NOT_REPEATED))

    def _write(self, failed: FailedStep) -> None:
        try:
            write_failed_step(self.run.folder / FAILED_STEP, failed)
        except OSError as error:
            warnings.warn(f"{self.run.folder / FAILED_STEP} cannot be written: {error.strerror}", stacklevel=2)

    def _report(self, error: NotFiniteError, failure: str, step: int) -> None:
        """Say what failed, in the first process, or end the run."""
        count, path = self.progress.failed_steps, self.run.folder / FAILED_STEP
        if count > MAX_FAILED_STEPS:
            raise ValueError(
                f"{error}; step {step + 1} is the {count}th that failed: {failure}; look at it with "
                f"`boxwright replay {path}`"
            ) from error
        self._announce(
            f"step {step + 1} is left out ({count} of at most {MAX_FAILED_STEPS}): its loss or gradient is not finite; "
            f"{failure}. To look at it: boxwright replay {path}"
        )

    def _announce(self, line: str) -> None:
        if self.rank.is_first and self.run.console is None:
            warnings.warn(line, stacklevel=3)
        elif self.rank.is_first and self.run.console is not None:
            self.run.console.print(line, highlight=False, soft_wrap=True, markup=False)


def _is_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(x.isfinite().all()) for x in tensors if x.is_floating_point())
