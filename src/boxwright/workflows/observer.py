"""The words and the progress of a workflow, for whoever runs it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from boxwright.data.image_check import ProgressCallback


class Observer:
    """Listens to a workflow: notes become warnings, everything else is silent.

    A subclass shows more; that of the command line prints.
    """

    console: Console | None = None
    """Terminal on which training shows its progress."""

    def note(self, line: str) -> None:
        """Take a line that the user should know: something was dropped, or will not work as hoped."""
        warnings.warn(line, stacklevel=3)

    def announce(self, line: str) -> None:
        """Take a line that says what begins."""

    @contextmanager
    def track(self, title: str) -> Iterator[ProgressCallback]:  # noqa: ARG002
        """Give a function to call as ``progress(done, total)`` while something takes its time."""
        yield lambda done, total: None  # noqa: ARG005


class ProgressOnly(Observer):
    """Shows the progress of another observer alone, where findings say what notes would."""

    def __init__(self, observer: Observer) -> None:
        self.track = observer.track  # type: ignore[method-assign]

    def note(self, line: str) -> None:
        """Say nothing."""


class Silent(Observer):
    """Hears and says nothing."""

    def note(self, line: str) -> None:
        """Take a line."""


def observer_of_first(observer: Observer) -> Observer:
    """Return the observer in the first of the processes that torchrun has started, and one that is silent in others."""
    return observer if os.environ.get("RANK", "0") == "0" else Silent()
