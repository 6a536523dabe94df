"""Notes, announcements and progress of a workflow on the terminal."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.segment import Segment
from rich.text import Text

from boxwright.cli.terminal import leave_closed_pipes
from boxwright.clock import format_clock
from boxwright.workflows.observer import Observer
from boxwright_runtime.printable_names import printable_text

if TYPE_CHECKING:
    from boxwright.data.image_check import ProgressCallback

SHOWN_FROM = 20
"""Things to do of which a bar shows the progress; checking an image takes no time, so of checks it is a hundredfold."""


class TerminalConsole(Console):
    """A console whose texts cannot command the terminal: what is no visible letter is written as an escape."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as ``Console`` does, with escapes in all texts."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                lines = map(printable_text, segment.text.split("\n"))
                yield Segment("\n".join(lines), segment.style)

    def on_broken_pipe(self) -> None:
        """Leave a reader that has gone to the command: by default rich would end the process."""
        raise BrokenPipeError


class NoteConsole(TerminalConsole):
    """The console of notes and progress: work goes on where nobody reads them any more."""

    def on_broken_pipe(self) -> None:
        """Be silent from now on."""
        self.quiet = True
        leave_closed_pipes()


class _PaceColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(describe_pace(task.speed, task.time_remaining))


def describe_pace(rate: float | None, seconds_left: float | None) -> str:
    """Say how many things are done in a second, and how long the rest takes; nothing before that is known."""
    if not rate or seconds_left is None:
        return ""
    digits = 0 if rate >= 100 else 1 if rate >= 1 else 2
    return f"{rate:,.{digits}f}/s, {format_clock(seconds_left)} left"


class ConsoleObserver(Observer):
    """Prints to standard error: lines as they are, and a bar on a terminal. Of several processes, the first prints."""

    console: Console

    def __init__(self) -> None:
        self.console = NoteConsole(stderr=True, quiet=os.environ.get("RANK", "0") != "0")  # torchrun's
        self._notes: set[str] = set()

    def note(self, line: str) -> None:
        """Print a note, once: what is true of a data set is noted at each of its splits."""
        if line not in self._notes:
            self._notes.add(line)
            self.announce(f"note: {line}")

    def announce(self, line: str) -> None:
        """Print a line, unbroken."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def track(self, title: str) -> Iterator[ProgressCallback]:
        """Show a bar while something takes its time."""
        # A format, and a title may have names in it.
        text = title.replace("{", "{{").replace("}", "}}")
        columns = (TextColumn(text, markup=False), BarColumn(), MofNCompleteColumn(), _PaceColumn())
        least = 100 * SHOWN_FROM if title.startswith("checking") else SHOWN_FROM
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(title, total=None, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=total >= least)
