"""The states in which a process that is killed can leave a folder: one before each change of a file."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class FolderStates:
    """Copies of a folder, made before each change of a file in it; equal ones once.

    What a process still holds in memory is not in them, as a killed process loses it.

    Args:
        folder: that is watched.
        copies: folder that the copies are written to, by number.
    """

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self.copies = folder, copies
        self.changes = 0
        self.states: list[Path] = []
        self._seen: set[str] = set()
        self._is_copying = False

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take an audit event of Python, which comes before what it is about."""
        if self._is_copying or not self._changes(event, arguments):
            return
        self.changes += 1
        self._is_copying = True
        self._copy()
        self._is_copying = False

    def _changes(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event not in ("open", "os.rename", "os.remove", "os.mkdir") or isinstance(arguments[0], int | None):
            return False
        if not os.fsdecode(arguments[0]).startswith(str(self.folder)):
            return False
        return event != "open" or bool(arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def _copy(self) -> None:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        digest = hashlib.sha256()
        for path in files:
            digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
        if digest.hexdigest() not in self._seen:
            self._seen.add(digest.hexdigest())
            self.states.append(self.copies / str(len(self.states)))
            self.states[-1].mkdir(parents=True)
            for path in files:
                shutil.copy(path, self.states[-1] / path.name)


_watching: list[FolderStates] = []
_hooks: list[str] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for states in _watching:
        states.hear(event, arguments)


@contextmanager
def states_of(folder: Path, copies: Path) -> Iterator[FolderStates]:
    """Watch a folder. An audit hook stays with Python for ever, and so there is one for all."""
    if not _hooks:
        _hooks.append("added")
        sys.addaudithook(_hear)
    _watching.append(states := FolderStates(folder, copies))
    try:
        yield states
    finally:
        _watching.remove(states)
