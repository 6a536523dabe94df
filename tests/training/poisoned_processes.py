"""The work of each of two processes that ``test_recovery.py`` starts: a run in which the second has a bad batch."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from boxwright.structures import Batch
from boxwright.training import loop
from boxwright.training.batches import training_batches
from boxwright.training.checkpoint import Progress
from boxwright.training.loop import run_training

POISONED = 1
"""Step, counted from 0."""


def main(file: Path) -> None:
    def poisoned(run: Any, rank: Any, schedule: Any, progress: Progress) -> Iterator[Batch]:
        for step, batch in enumerate(training_batches(run, rank, schedule, progress), progress.step):
            if step == POISONED and rank.index == 1:
                batch.images[0] = math.inf
            yield batch

    loop.training_batches = poisoned
    run = torch.load(file, weights_only=False)  # the test's own file
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        progress = run_training(run)
    rank = torch.distributed.get_rank()
    lines = [str(one.message) for one in caught if "is left out" in str(one.message)]
    torch.save((progress.failed_steps, lines, run.detector.state_dict()), file.with_name(f"rank_{rank}.out"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
