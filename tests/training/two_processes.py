"""The work of each of two processes that ``test_distributed.py`` starts."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from partition_cases import first_batch, make_step
from torch import nn

from boxwright.structures import Batch
from boxwright.training import loop
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.distributed import Rank, init_distributed
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step
from boxwright.training.sync_norms import sync_norms


def images_of(batch: Batch, rank: Rank) -> Batch:
    """The images of one process."""
    size = len(batch.targets) // rank.world_size
    part = slice(rank.index * size, (rank.index + 1) * size)
    mask = None if batch.padding_mask is None else batch.padding_mask[part]
    return Batch(batch.images[part], mask, batch.targets[part], batch.sizes[part], batch.image_ids[part])


def one_step(file: Path, rank: Rank) -> None:
    """Do one optimizer step on this process's images; write loss, gradients and statistics."""
    detector, batch, options = torch.load(file, weights_only=False)  # the test's own file
    if options.runtime.sync_norms:
        sync_norms(detector, rank.device)
    model = nn.parallel.DistributedDataParallel(detector)
    torch.manual_seed(rank.index)
    result = train_step(
        detector, model, make_optimizer(detector, options), images_of(batch, rank), options, rank.device
    )
    gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    statistics = {name: buffer for name, buffer in detector.named_buffers() if "running" in name}
    torch.save((result.loss, gradients, statistics), file.with_name(f"{file.stem}_rank_{rank.index}.out"))


def family_step(file: Path, rank: Rank) -> None:
    """Do the first step of a run on what its loader gives this process; write losses and gradients."""
    run = torch.load(file, weights_only=False)
    step = make_step(run, first_batch(run, rank), wrap=nn.parallel.DistributedDataParallel)
    torch.save(step, file.with_name(f"{file.stem}_rank_{rank.index}.out"))


WORK = {"case": one_step, "family": family_step}


class StopAfterTwo(Callback):
    """Asks to stop after the second step."""

    def on_step(self, event: StepEvent) -> None:
        if event.step == 2:
            event.stop()


def whole_run(file: Path, rank: Rank) -> None:
    """Train a run until its callback stops it; write the images and the seed of every step."""
    run = replace(torch.load(file, weights_only=False), callbacks=[StopAfterTwo()])
    steps: list[tuple[list[int], int]] = []

    def observed(*arguments: Any) -> Any:
        steps.append((arguments[3].image_ids, torch.initial_seed()))
        return train_step(*arguments)

    loop.train_step = observed
    progress = loop.run_training(run)
    weights = run.detector.state_dict()
    torch.save((progress.step, steps, weights), file.with_name(f"{file.stem}_rank_{rank.index}.out"))


def main(folder: Path) -> None:
    rank = init_distributed("cpu")
    assert rank.world_size == 2
    for file in sorted(folder.glob("*.pt")):
        WORK.get(file.name.partition("_")[0], whole_run)(file, rank)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
