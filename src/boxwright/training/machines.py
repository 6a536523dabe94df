"""The machines on which torchrun has started processes: work that is done once on each, and restarts."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
import torch.distributed as dist

from boxwright.training.distributed import join_processes

PATIENCE = timedelta(days=7)
"""Time that processes wait for the first of their machine, which may have a million images to read."""

BYTES_AT_ONCE = 64 * 2**20
"""Bytes of a file that are sent at a time."""


def is_restarted() -> bool:
    """Tell if torchrun started the processes anew, after one of them had ended in an error (``--max-restarts``).

    All have to ask: each machine counts its own restarts.
    """
    own = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if not join_processes():
        return own > 0
    count = torch.tensor([own])
    dist.all_reduce(count, dist.ReduceOp.MAX)
    return bool(count.item())


@contextmanager
def first_of_machine_first() -> Iterator[None]:
    """Let the first process of each machine do something before the others, which find what it has remembered.

    Of an error of the first one the others do not hear: torchrun ends them.
    """
    if not join_processes():
        yield
        return
    group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=PATIENCE))
    is_first = _is_first_of_machine()
    if not is_first:
        dist.barrier(group)
    yield
    if is_first:
        dist.barrier(group)
    dist.destroy_process_group(group)


def share_file(path: Path) -> None:
    """Copy a file to the machines that do not have it, or have another, from the first process that has it.

    Machines without a shared disk each have a folder of the run, and the first process alone writes into its own.
    Nothing happens where no process has the file.
    """
    if not join_processes():
        return
    own = _digest(path)
    digests: list[bytes | None] = [None] * dist.get_world_size()
    dist.all_gather_object(digests, own)
    source = next((rank for rank, digest in enumerate(digests) if digest is not None), None)
    if source is None or set(digests) == {digests[source]}:
        return
    is_missing = own != digests[source] and _is_first_of_machine()
    size = torch.tensor([path.stat().st_size if own is not None else 0])
    dist.broadcast(size, source)
    unfinished = path.with_name(f"{path.name}.copy")
    if is_missing:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as target:
            _exchange(None, target, int(size), source)
        os.replace(unfinished, path)
    elif dist.get_rank() == source:
        with open(path, "rb") as file:
            _exchange(file, None, int(size), source)
    else:
        _exchange(None, None, int(size), source)
    dist.barrier()


def _exchange(file: BinaryIO | None, target: BinaryIO | None, size: int, source: int) -> None:
    """Send the contents of a file, chunk by chunk, or take part and write them to ``target``."""
    for start in range(0, size, BYTES_AT_ONCE):
        length = min(BYTES_AT_ONCE, size - start)
        chunk = torch.empty(length, dtype=torch.uint8)
        if file is not None:
            chunk.numpy()[:] = np.frombuffer(file.read(length), dtype=np.uint8)
        dist.broadcast(chunk, source)
        if target is not None:
            target.write(chunk.numpy().tobytes())


def _digest(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _is_first_of_machine() -> bool:
    return os.environ.get("LOCAL_RANK", "0") == "0"
