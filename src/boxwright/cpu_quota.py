"""The processor cores that this process may use: those of the machine, less what a container or a scheduler forbids."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from boxwright.control_groups import list_groups, read_system_file

THREADS, WAITING = "OMP_NUM_THREADS", "OMP_WAIT_POLICY"
"""Variables of the environment that OpenMP reads once, when torch is imported."""


def count_allowed_cores(root: Path = Path("/")) -> float:
    """Count the cores that this process may use; a quota of a control group may be a part of one.

    Args:
        root: folder with ``proc`` and ``sys``.
    """
    try:
        cores = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # macOS, Windows
        cores = float(os.cpu_count() or 1)
    return min([cores, *_quotas(root)])


def set_threading(environment: MutableMapping[str, str], root: Path = Path("/")) -> None:
    """Set how many threads of OpenMP compute, and how they wait, unless the user has; before torch is imported.

    More threads than cores take turns on them: a step takes longer with two than with one. Threads that wait for each
    other by spinning take the cores from whoever works: on two cores with other programs on them, a forward and
    backward of four convolutions took 61 s with two spinning threads, 5.9 s with two that sleep, 2.2 s with one.
    """
    allowed = max(1, math.floor(count_allowed_cores(root)))
    if allowed < (os.cpu_count() or 1):
        environment.setdefault(THREADS, str(allowed))
    environment.setdefault(WAITING, "PASSIVE")


def describe_quota(threads: int, root: Path = Path("/")) -> str | None:
    """Say in one line that more threads compute than there are cores to use; None where there are no more."""
    allowed = count_allowed_cores(root)
    if threads <= max(1, math.floor(allowed)):
        return None
    return (
        f"{threads} threads compute, and this container may use {allowed:g} cores: they wait for each other; set "
        f"{THREADS}={max(1, math.floor(allowed))}"
    )


def _quotas(root: Path) -> Iterator[float]:
    """List the quotas of this process's control groups and of those above them, in cores."""
    for folder, version in list_groups("cpu", root):
        files = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        fields = " ".join(read_system_file(folder / name) for name in files).split()
        if len(fields) == 2 and all(field.isdigit() for field in fields) and int(fields[1]):
            yield int(fields[0]) / int(fields[1])
