"""Work of the processes that ``test_spawn.py`` starts: importable in each."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist

from boxwright.training.distributed import init_distributed


def add_ranks(folder: Path) -> None:
    """Write the sum of (rank + 1) over the processes, and the threads of this one, into a file of this one.

    Ctrl-C comes to all; what it does is for the first to say.
    """
    rank = init_distributed("cpu")
    if not rank.is_first:
        os.kill(os.getpid(), signal.SIGINT)
    total = torch.tensor(rank.index + 1)
    dist.all_reduce(total)
    text = f"{int(total)} {torch.get_num_threads()} {os.environ['LOCAL_WORLD_SIZE']}"
    (folder / str(rank.index)).write_text(text)


def fail_alone() -> None:
    """Join, and end in an error in other processes than the first, which goes on to wait for them."""
    if not init_distributed("cpu").is_first:
        raise ValueError("image 7 has no end")
    dist.all_reduce(torch.tensor(1))


def be_killed() -> None:
    """Join, and be killed in other processes than the first, which goes on to wait for them."""
    if not init_distributed("cpu").is_first:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.tensor(1))


class Unreadable:
    """Pickled without a word; a process that reads it ends."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return os._exit, (3,)

    def __call__(self) -> None:
        """Do nothing."""
