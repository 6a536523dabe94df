"""Stopping on Ctrl-C, after a step rather than in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; its state is saved."""


class Stop:
    """``asked`` is whether the user wants training to stop."""

    asked = False


@contextmanager
def stop_on_interrupt() -> Iterator[Stop]:
    """The first Ctrl-C asks to stop after the step; the second one ends it at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True

    try:
        previous = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: Ctrl-C is somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
