"""What a run shows while it goes."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

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

from boxwright.training.measures import summary_metrics
from boxwright.training.step import StepResult

PLAIN_INTERVAL = 20.0


class Display:
    """A progress bar on a terminal, a line now and then elsewhere.

    Args:
        steps: of the whole run.
        step: steps done.
        console: where to; silent where None.
    """

    def __init__(self, steps: int, step: int, console: Console | None) -> None:
        self.steps, self.console = steps, console
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

    def __enter__(self) -> Display:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, done: int, result: StepResult, lr: float, images_per_second: float, seconds_left: float) -> None:
        """Show where the run stands after ``done`` steps."""
        numbers = f"loss {result.loss:.2f}  lr {lr:.1e}  {images_per_second:.1f} img/s  {_memory()}"
        if self._bar is not None:
            self._bar.update(self._task, completed=done, numbers=numbers)
        elif self.console is not None and time.monotonic() - self._spoke >= PLAIN_INTERVAL:
            self._spoke = time.monotonic()
            self.console.print(f"step {done}/{self.steps}  {numbers}  {_clock(seconds_left)} left", soft_wrap=True)

    def evaluation(self, done: int, metrics: Mapping[str, Any], *, best: bool) -> None:
        """A line that stays: what was measured after ``done`` steps, and whether it is the best so far."""
        numbers = [f"{name} {value:.3f}" for name, value in summary_metrics(metrics).items()]
        line = "  ".join([f"step {done}/{self.steps}", *numbers, *(["best so far"] if best else [])])
        if self.console is not None:
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def _memory() -> str:
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return f"{peak / (2**30 if sys.platform == 'darwin' else 2**20):.1f} GiB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
