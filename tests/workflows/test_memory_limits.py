"""Limits of memory as systems write them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from boxwright.workflows.memory_limits import FreeMemory, free_memory, peak_memory, resident_memory

MEMINFO = "MemTotal: 9000 kB\nMemFree: 1000 kB\nMemAvailable: 4000 kB\n"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_containers(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, {"proc/meminfo": MEMINFO})) == FreeMemory(4000 * 1024, "machine")


def test_a_container_of_version_2_with_a_lower_limit_above(tmp_path: Path) -> None:
    """The group above has 3,000,000 of which 1,000,000 are used, 200,000 by files that can go."""
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/above/own\n",
        "sys/fs/cgroup/above/own/memory.max": "max\n",
        "sys/fs/cgroup/above/own/memory.current": "900000\n",
        "sys/fs/cgroup/above/memory.max": "3000000\n",
        "sys/fs/cgroup/above/memory.current": "1000000\n",
        "sys/fs/cgroup/above/memory.stat": "anon 800000\ninactive_file 200000\n",
    }
    assert free_memory(system(tmp_path, files)) == FreeMemory(2_200_000, "container")


@pytest.mark.parametrize(("limit", "expected"), [(2_000_000, (1_500_000, "container")), (2**63 - 4096, None)])
def test_a_container_of_version_1_whose_path_is_the_hosts(
    tmp_path: Path, limit: int, expected: tuple[int, str] | None
) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "5:cpu:/docker/abc\n4:memory:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{limit}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "600000\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100000\n",
    }
    assert free_memory(system(tmp_path, files)) == FreeMemory(*(expected or (4000 * 1024, "machine")))


def test_a_limit_that_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "200\n",
        "proc/meminfo": MEMINFO,
    }
    assert free_memory(system(tmp_path, files)) == FreeMemory(0, "container")


def test_this_process() -> None:
    peak = peak_memory()
    assert peak is not None
    assert peak >= resident_memory() > 10 * 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits private memory")
def test_beyond_the_limit_there_is_an_error_and_the_peak_is_known() -> None:
    code = (
        "from boxwright.workflows.memory_limits import *\n"
        "reset_peak(); before = peak_memory()\n"
        "x = bytearray(50 * 2**20); print(peak_memory() - before > 40 * 2**20); del x\n"
        "limit_memory(100 * 2**20)\n"
        "x = bytearray(30 * 2**20)\n"
        "try:\n    bytearray(300 * 2**20)\nexcept MemoryError:\n    print('refused')\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "refused"]
