"""Memory that processes share, through which reading processes hand over their batches.

Containers have 64 MiB of it unless told otherwise. Where it is full, a process that writes there is ended by the system
in the middle of a batch, and the one that waits for it hangs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

FOLDER = Path("/dev/shm")

BATCHES_AHEAD = 3
"""Batches of each process that exist at once: two that are made ahead, and the one that is handed over."""


def free_shared_memory(folder: Path = FOLDER) -> int | None:
    """Return the bytes that are free; None where the system has no such folder, and no such limit."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def count_workers(most: int, batch_bytes: int, folder: Path = FOLDER) -> int:
    """Return how many reading processes have room for their batches, at most ``most``; 0 where none has.

    Args:
        most: processes.
        batch_bytes: of the largest batch.
        folder: of the shared memory.
    """
    free = free_shared_memory(folder)
    if free is None:
        return most
    return min(most, int(free / (BATCHES_AHEAD * max(1, batch_bytes))))
