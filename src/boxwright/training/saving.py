"""Saving of a run in training: when it is due, and after an error."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from boxwright.compose.train_options import seconds
from boxwright.training.checkpoint import RunCheckpoints
from boxwright.training.distributed import wait_for_all
from boxwright.training.failures import describe_failure
from boxwright.training.pace import Pace
from boxwright.training.recovery import Recovery
from boxwright.training.sharding import is_sharded

FIRST_SAVE = 45.0
"""Seconds after which the first checkpoint is written, at the latest with the step that is being done."""


class Saving:
    """The checkpoints that a run writes while it goes on.

    Args:
        checkpoints: of the run.
        recovery: of the run; tells whether the state is finite (another is never saved), and has the buffers as they
            were before a step that is not done.
        pace: of a run that has a budget of time, or None; hears what saving takes.
        tell: hears of every file that is written.
    """

    def __init__(
        self, checkpoints: RunCheckpoints, recovery: Recovery, pace: Pace | None, tell: Callable[[Path], None]
    ) -> None:
        self.checkpoints, self.recovery, self.pace, self.tell = checkpoints, recovery, pace, tell
        self.progress = recovery.progress
        self.interval = seconds(recovery.run.options.runtime.save_interval)
        self.next_save = time.monotonic() + min(FIRST_SAVE, self.interval)
        self.saved_step = self.progress.step

    @property
    def is_due(self) -> bool:
        """True where the last checkpoint is old, by the clock of this process."""
        return time.monotonic() > self.next_save

    def save(self, *, best: bool = False) -> None:
        """Write the last checkpoint, and the best one where the weights are the best.

        Raises:
            StateLostError: the state is not finite.
        """
        start = time.monotonic()
        self.recovery.check_state()
        paths = self.checkpoints.save(self.progress, best=best)
        self.saved_step, self.next_save = self.progress.step, time.monotonic() + self.interval
        if self.pace is not None:
            self.pace.add_saving(time.monotonic() - start)
        for path in paths:
            self.tell(path)

    def save_after(self, error: Exception, *, is_shared: bool) -> str:
        """Save what was whole before an error, where there is something to save; say what can be gone on from.

        Args:
            error: the reason.
            is_shared: it is raised in all processes, between two steps. Without that, of a sharded detector nothing is
                saved: the other processes may be gone, or in the middle of a step.
        """
        message = self._save_after(error, is_shared)
        if is_shared:
            with suppress(RuntimeError):  # torchrun ends all processes once one has left; but who is gone is gone
                wait_for_all(self.recovery.rank)
        return message

    def _save_after(self, error: Exception, is_shared: bool) -> str:
        is_together = is_sharded(self.checkpoints.detector)
        if not self.recovery.rank.is_first and not (is_together and is_shared):
            return ""
        self.recovery.buffers.restore()
        reason = ""
        if is_together and not is_shared:
            reason = " (a sharded run is not saved after an error)" if self.progress.step > self.saved_step else ""
        elif self.progress.step > self.saved_step:
            try:
                self.save()
            except Exception as another:  # whatever it is, the first error is the one to tell
                reason = f" ({describe_failure(another) or type(another).__name__})" if another is not error else ""
        if self.saved_step == 0:
            return f"; nothing is saved yet{reason}"
        return f"; step {self.saved_step} is saved in {self.checkpoints.folder}{reason}, and --resume goes on from it"

    def explain(self, error: Exception, *, is_shared: bool) -> Exception:
        """Save, and return an error of one line; what nobody foresaw stays what it is."""
        saved = self.save_after(error, is_shared=is_shared)
        known = describe_failure(error)
        if known is None:
            error.add_note(saved.removeprefix("; "))
            return error
        return ValueError(f"{known}{saved}")
