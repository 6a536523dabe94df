"""What ``test_distributed.py`` runs in each of two processes: one optimizer step of this process's share."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from boxwright.structures import Batch
from boxwright.training.distributed import init_distributed
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import train_step


def share(batch: Batch, rank: int, processes: int) -> Batch:
    """The images of one process."""
    size = len(batch.targets) // processes
    own = slice(rank * size, (rank + 1) * size)
    return Batch(batch.images[own], None, batch.targets[own], batch.sizes[own], batch.image_ids[own])


def run(folder: Path) -> None:
    rank = init_distributed("cpu")
    assert rank.world_size == 2
    for file in sorted(folder.glob("case_*.pt")):
        # Written by the test itself.
        detector, batch, options = torch.load(file, weights_only=False)
        model = nn.parallel.DistributedDataParallel(detector)
        torch.manual_seed(rank.index)
        result = train_step(
            detector,
            model,
            make_optimizer(detector, options),
            share(batch, rank.index, rank.world_size),
            options,
            rank.device,
        )
        gradients = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
        torch.save((result.loss, gradients), folder / f"{file.stem}_rank_{rank.index}.out")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
