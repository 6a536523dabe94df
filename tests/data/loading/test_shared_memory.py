"""Reading processes hand their batches over in shared memory, of which a container has little."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest

from boxwright.data.loading import shared_memory
from boxwright.data.loading.shared_memory import count_workers, free_shared_memory

MIB = 2**20


@pytest.mark.parametrize(
    ("free", "batch", "workers"),
    # Three batches of each process have to find room.
    [(64, 1, 8), (64, 3, 7), (64, 10, 2), (64, 21, 1), (64, 22, 0), (64, 1000, 0)],
)
def test_as_many_processes_as_have_room(monkeypatch: pytest.MonkeyPatch, free: int, batch: int, workers: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda _: usage(64 * MIB, 0, free * MIB))
    assert count_workers(8, batch * MIB) == workers
    assert count_workers(1, batch * MIB) == min(1, workers)
    assert count_workers(0, batch * MIB) == 0


def test_without_such_a_folder_there_is_no_limit(tmp_path: Path) -> None:
    assert free_shared_memory(tmp_path / "none") is None
    assert count_workers(8, 10**15, tmp_path / "none") == 8
