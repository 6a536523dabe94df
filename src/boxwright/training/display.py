"""The progress of a run on the console."""

from __future__ import annotations

import sys
import time

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from boxwright.clock import format_clock
from boxwright.training.callbacks import Callback, EvaluationEvent, StepEvent
from boxwright.training.measures import summary_metrics

PLAIN_INTERVAL = 20.0


class Display(Callback):
    """A progress bar on a terminal, a line now and then elsewhere.

    Args:
        steps: of the whole run.
        step: steps done.
        console: silent where None.
    """

    def __init__(self, steps: int, step: int, console: Console | None) -> None:
        self.console = console
        self._spoke = time.monotonic()
        self._bar: Progress | None = None
        if console is not None and console.is_terminal:
            self._bar = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[numbers]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=console,
            )
            self._task = self._bar.add_task("training", total=steps, completed=step, numbers="")
            self._bar.start()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_step(self, event: StepEvent) -> None:
        numbers = f"loss {event.loss:.2f}  lr {event.lr:.1e}  {event.images_per_second:.1f} img/s  {_memory()}"
        if self._bar is not None:
            self._bar.update(self._task, completed=event.step, total=event.steps, numbers=numbers)
        elif self.console is not None and time.monotonic() - self._spoke >= PLAIN_INTERVAL:
            self._spoke = time.monotonic()
            left = format_clock(event.seconds_left)
            self.console.print(f"step {event.step}/{event.steps}  {numbers}  {left} left", soft_wrap=True)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        numbers = [f"{name} {value:.3f}" for name, value in summary_metrics(event.metrics).items()]
        line = "  ".join([f"step {event.step}/{event.steps}", *numbers, *(["best so far"] if event.best else [])])
        if self.console is not None:
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _memory() -> str:
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    try:
        import resource
    except ImportError:  # Windows
        return ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"
