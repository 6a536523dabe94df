"""Memory that a process may still take, and the most that it took: of the machine, and of the container it is in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from boxwright.control_groups import list_groups, read_system_file

UNLIMITED = 2**60
"""Limits from here on are none: cgroups of version 1 write the largest whole number of pages."""

RESERVE_BYTES = 200 * 2**20
"""Memory that is left to everybody else."""

KILLED = (-9, 137)
"""Codes of a process that was ended from outside, as the system does where memory runs out."""

_UNITS = {"kB": 2**10}

_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""Names of limit, use, and of the row of ``memory.stat`` that could be given back, by version of control groups."""


class FreeMemory(NamedTuple):
    """Bytes that can still be taken, and whose limit that is: ``machine`` or ``container``."""

    bytes: int
    owner: str


def free_memory(root: Path = Path("/")) -> FreeMemory | None:
    """Return the memory that is free for processes like this one; None where the system does not say.

    Args:
        root: folder with ``proc`` and ``sys``.
    """
    limits = [FreeMemory(count, "container") for count in _free_in_cgroups(root)]
    available = _read_table(root / "proc" / "meminfo").get("MemAvailable")
    if available is None:
        available = _physical_memory()
    if available is not None:
        limits.append(FreeMemory(available, "machine"))
    return min(limits, default=None)


def resident_memory() -> int:
    """Return the bytes that this process has in memory now; 0 where the system does not say."""
    return _read_table(Path("/proc/self/status")).get("VmRSS", 0)


def peak_memory() -> int | None:
    """Return the most bytes that this process had in memory, since ``reset_peak``; None where the system does not say.

    Where that cannot be reset, it is the most since the process began.
    """
    peak = _read_table(Path("/proc/self/status")).get("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    # Linux counts kibibytes, macOS bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Let ``peak_memory`` begin anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def limit_memory(more: int) -> None:
    """Let this process take only so many bytes more: beyond, it gets an error, and the system stays alive.

    The kernel is told, too, to end this process first where memory runs out all the same.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    used = _read_table(Path("/proc/self/status")).get("VmData")
    if used is None:
        return
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (used + more, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    except (ImportError, OSError, ValueError):
        return


def _free_in_cgroups(root: Path) -> Iterator[int]:
    """Return what is left of the limit of this process's control groups, and of all above them."""
    for folder, version in list_groups("memory", root):
        limit_name, usage_name, cache_name = _FILES[version]
        limit, usage = _read_number(folder / limit_name), _read_number(folder / usage_name)
        if limit is not None and usage is not None and limit < UNLIMITED:
            cache = _read_table(folder / "memory.stat").get(cache_name, 0)
            yield max(0, limit - usage + cache)


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _read_number(path: Path) -> int | None:
    text = read_system_file(path).strip()
    return int(text) if text.isdigit() else None


def _read_table(path: Path) -> dict[str, int]:
    """Read lines of a name, a number and perhaps a unit, as ``VmRSS:  12 kB``."""
    table = {}
    for line in read_system_file(path).splitlines():
        fields = line.replace(":", " ").split()
        if len(fields) >= 2 and fields[1].isdigit():
            table[fields[0]] = int(fields[1]) * _UNITS.get(fields[2] if len(fields) > 2 else "", 1)
    return table
