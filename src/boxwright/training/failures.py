"""Failures in the middle of training: in one line, and with the state as it was before the step."""

from __future__ import annotations

from textwrap import shorten

import torch
from torch import Tensor, nn

NO_MEMORY = ("can't allocate memory", "out of memory", "cannot allocate memory", "not enough memory")
WORKER_ENDED = "DataLoader worker"
PROCESS_ENDED = ("Connection closed by peer", "Connection reset by peer", "Socket Timeout", "Timed out waiting")
OTHER_ENDED = "another process of the run has ended"


def describe_failure(error: Exception) -> str | None:
    """Say in one line what failed and what helps; None where that is not known, as with a fault of the code."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or _has(error, text, NO_MEMORY):
        return (
            "there was no memory for a step: take more and smaller parts (--train.batches.accumulate_steps), "
            "a smaller --train.batch_size or a smaller --image-size"
        )
    if _has(error, text, (WORKER_ENDED,)):
        return (
            "a process that reads images was ended from outside, as happens without memory or where /dev/shm is full: "
            "take fewer (--train.runtime.workers, 0 for none)"
        )
    if _has(error, text, PROCESS_ENDED):
        return OTHER_ENDED
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return f"torch.compile cannot compile this: {shorten(text, 200)}; go on with --train.runtime.compile off"
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else text
    return None


def _has(error: Exception, text: str, phrases: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in phrases)


class KeptBuffers:
    """The buffers of a detector before a step: a forward that fails has changed the statistics of norms."""

    def __init__(self, detector: nn.Module) -> None:
        self._buffers = [buffer for buffer in detector.buffers() if buffer.numel()]
        self._copies: list[Tensor] | None = None
        self._are_whole = True

    @torch.no_grad()
    def keep(self) -> None:
        """Copy them, before a step."""
        if self._copies is None:
            self._copies = [buffer.clone() for buffer in self._buffers]
        elif self._copies:  # torch refuses an empty list
            torch._foreach_copy_(self._copies, self._buffers)
        self._are_whole = False

    def forget(self) -> None:
        """Take note that the step was done."""
        self._are_whole = True

    @torch.no_grad()
    def restore(self) -> None:
        """Put back what a step that was not done has changed."""
        if not self._are_whole and self._copies:
            torch._foreach_copy_(self._buffers, self._copies)
            self._are_whole = True
