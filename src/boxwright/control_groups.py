"""The control groups of Linux that limit this process, as a container or a scheduler has set them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class GroupFolder(NamedTuple):
    """The folder of a group's limits, and the version of the files in it: 1 or 2."""

    path: Path
    version: int


def list_groups(controller: str, root: Path = Path("/")) -> Iterator[GroupFolder]:
    """List the groups of this process for a controller, and all groups above them.

    Args:
        controller: ``cpu`` or ``memory``.
        root: folder with ``proc`` and ``sys``.
    """
    mounts = root / "sys" / "fs" / "cgroup"
    for line in read_system_file(root / "proc" / "self" / "cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        mount, group = mounts / controller if controllers else mounts, Path(path.strip("/"))
        # Inside a container the path is often that of the host: the mount itself is then the container's group.
        for folder in {mount / group, *(mount / parent for parent in group.parents), mount}:
            yield GroupFolder(folder, 1 if controllers else 2)


def read_system_file(path: Path) -> str:
    """Read a file of the system; nothing where there is none, or none that may be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
