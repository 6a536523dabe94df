"""The work of each of two processes that ``test_sharding.py`` starts."""

from __future__ import annotations

import math
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from partition_cases import Step, first_batch, keep_statistics
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.structures import Batch, Features
from boxwright.training import loop
from boxwright.training.batches import training_batches
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.checkpoint import Progress
from boxwright.training.distributed import Rank, init_distributed
from boxwright.training.interrupt import Interrupted
from boxwright.training.optimizer import make_optimizer
from boxwright.training.run import Run
from boxwright.training.sharding import gather_tensors, local_shard, shard_detector
from boxwright.training.step import train_step


class ScaledNeck(nn.Module):
    """A neck whose levels are multiplied by a number, a parameter without dimensions, which FSDP2 does not take."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck, self.out_spec = neck, neck.out_spec
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None) -> Features:
        return {name: level * self.scale for name, level in self.neck(features, padding_mask).items()}


@dataclass(frozen=True)
class Job:
    """A step, where it accumulates, or else a run, and what happens in it.

    Args:
        run: that is done, or of which the first step is done.
        accumulate: parts of the step; 0 for a whole run.
        resume: go on with the run.
        interrupt_after: step after which the processes are asked to end; 0 for none.
        fail_after: step after which the first process fails; 0 for none.
        poisoned: step, counted from 0, in which the second process has an image that is not finite.
    """

    run: Run
    accumulate: int = 0
    resume: bool = False
    interrupt_after: int = 0
    fail_after: int = 0
    poisoned: int = -1


class Outcome(NamedTuple):
    """A run in one process: steps left out, lines about them, values of moments that it holds and of all."""

    failed_steps: int
    lines: list[str]
    held: int
    total: int
    metrics: list[dict[str, Any]]


class Ends(Callback):
    """Asks the processes to end after a step, of which the first hears, or fails."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def on_step(self, event: StepEvent) -> None:
        if event.step == self.job.interrupt_after:
            signal.raise_signal(signal.SIGTERM)
        if event.step == self.job.fail_after:
            raise ValueError("a fault")


def double_batches(poisoned: int = -1) -> Callable[..., Iterator[Batch]]:
    """Stand in for ``training_batches``: as float64, so that any other order of sums is nearly no difference.

    Args:
        poisoned: step, counted from 0, in which the second process has an image that is not finite.
    """

    def batches(run: Run, rank: Rank, schedule: Any, progress: Progress) -> Iterator[Batch]:
        for step, batch in enumerate(training_batches(run, rank, schedule, progress), progress.step):
            if step == poisoned and rank.index == 1:
                batch.images[0] = math.inf
            yield batch._replace(images=batch.images.double())

    return batches


def sharded_step(run: Run, rank: Rank, accumulate: int) -> Step:
    """Do the first step on what the loader gives this process; return losses and whole gradients."""
    detector = keep_statistics(run.detector)
    shard_detector(detector, rank.device)
    options = replace(run.options, batches=replace(run.options.batches, accumulate_steps=accumulate))
    optimizer = make_optimizer(detector, options)
    result = train_step(detector, detector, optimizer, first_batch(run, rank), options, rank.device)
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    return Step(result.losses, gather_tensors(gradients, keep=True))


def whole_run(job: Job) -> Outcome:
    """Do a run, and look at the optimizer in its end."""
    optimizers: list[torch.optim.Optimizer] = []
    metrics: list[dict[str, Any]] = []

    def make(*arguments: Any) -> torch.optim.Optimizer:
        optimizers.append(make_optimizer(*arguments))
        return optimizers[0]

    class Evaluate:
        num_images = 1

        def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
            assert job.run.evaluate is not None
            measured = job.run.evaluate(deepcopy(detector).float(), limit)
            total = sum(float(p.detach().double().abs().sum()) for p in detector.parameters())
            metrics.append({**measured, "total": total})
            return measured

    loop.make_optimizer, loop.training_batches = make, double_batches(job.poisoned)
    run = replace(job.run, evaluate=None if job.run.evaluate is None else Evaluate(), callbacks=[Ends(job)])
    failed, lines = 0, []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            failed = loop.run_training(run, resume=job.resume).failed_steps
        except Interrupted:
            assert job.interrupt_after
        lines = [str(one.message) for one in caught if "is left out" in str(one.message)]
    moments = [x for state in optimizers[0].state.values() for name, x in state.items() if name != "step"]
    return Outcome(
        failed, lines, sum(local_shard(x).numel() for x in moments), sum(x.numel() for x in moments), metrics
    )


def main(folder: Path) -> None:
    rank = init_distributed("cpu")
    assert rank.world_size == 2
    for file in sorted(folder.glob("*.job")):
        job = torch.load(file, weights_only=False)  # the test's own file
        # As a plain tuple: the classes of this file have other names in the test.
        outcome = sharded_step(job.run, rank, job.accumulate) if job.accumulate else tuple(whole_run(job))
        torch.save(outcome, file.with_name(f"{file.stem}_rank_{rank.index}.out"))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
