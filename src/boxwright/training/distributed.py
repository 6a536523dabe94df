"""The processes that train together, where torchrun has started several, and their devices."""

from __future__ import annotations

import atexit
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from boxwright.devices import choose_device
from boxwright.training.failures import describe_failure

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rank:
    """This process among all that train.

    Args:
        index: from 0.
        world_size: number of processes.
        device: of this process.
    """

    index: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """True in the one process that evaluates, writes and prints."""
        return self.index == 0


def join_processes() -> bool:
    """Join the other processes where torchrun has started any; return whether it has."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return False
    if not dist.is_initialized():
        # Detections and errors, which are not on a GPU, are exchanged by gloo.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        store, rank, world_size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=_of_this_start(store), rank=rank, world_size=world_size)
        # A group that is left to the interpreter's end may wait there for ever for the threads of others.
        atexit.register(leave_processes)
    return True


def _of_this_start(store: Store) -> Store:
    """Set apart what processes tell each other from what those before a restart have told.

    torchrun of torch 2.14 starts processes again with the same store, in which they would find the addresses of those
    that have ended. On several machines each counts its own restarts: there it has to make new stores
    (``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1``).
    """
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return PrefixStore(f"start_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)


def leave_processes() -> None:
    """End the group with its threads: one that is left to the end of the interpreter may abort it after all is done.

    What wraps a detector in training is garbage by then, but in cycles, and holds on to the group.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def init_distributed(device: str) -> Rank:
    """Join the other processes where torchrun has started any; one process of one otherwise.

    Args:
        device: as in ``RuntimeOptions``.

    Raises:
        ValueError: there is no such device.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    used = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    join_processes()
    if used.type == "cuda":
        torch.cuda.set_device(used)
    return Rank(dist.get_rank() if dist.is_initialized() else 0, count, used)


def highest(rank: Rank, *numbers: int | float) -> list[int | float]:
    """Return the highest of each number over all processes, each of which must ask."""
    if rank.world_size == 1:
        return list(numbers)
    every = torch.tensor(numbers, dtype=torch.float64, device=rank.device)
    dist.all_reduce(every, dist.ReduceOp.MAX)
    return [float(number) for number in every.tolist()]


class SharedError(Exception):
    """An error of one process that is raised in all of them at once, between two steps.

    Args:
        error: of this process; where it has none, that of another one, as far as its message.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def attempt_together(rank: Rank, work: Callable[[], _T]) -> _T:
    """Do what each process does by itself, and let an error of one be an error of all, before they wait for each other.

    Raises:
        SharedError: the work of one process or more has failed; where there is one process alone, its error itself.
    """
    if rank.world_size == 1:
        return work()
    result, error = None, None
    try:
        result = work()
    except Exception as caught:
        error = caught
    if highest(rank, error is not None)[0]:
        own = None if error is None else describe_failure(error) or f"{type(error).__name__}: {error}"
        errors: list[str | None] = [None] * rank.world_size
        dist.all_gather_object(errors, own)
        raise SharedError(error or ValueError(next(text for text in errors if text is not None)))
    return cast(_T, result)


def wait_for_all(rank: Rank) -> None:
    """Return once all processes have come here."""
    highest(rank, 0)
