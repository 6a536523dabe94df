"""An observer that remembers."""

from __future__ import annotations

from boxwright.workflows.observer import Observer


class Heard(Observer):
    """Collects what a workflow says."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)

    def announce(self, line: str) -> None:
        self.lines.append(line)
