"""Stopping on Ctrl-C, and when the system asks for it, after a step rather than in the middle of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")

SIGNALS = tuple(signal.Signals[name] for name in _NAMES if name in signal.Signals.__members__)
"""Ctrl-C; what job schedulers and containers send; a terminal that is gone; Ctrl-Break of Windows."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user or the system; its state is saved.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """A wish to stop, by a signal: ``number`` is that of the signal, None before any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._is_in_vain = False

    @property
    def asked(self) -> bool:
        """True once a signal has come."""
        return self.number is not None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end, with ``Interrupted``, what is repeated as a whole when the run goes on."""
        self._is_in_vain = True
        try:
            if self.number is not None:
                raise Interrupted(self.number)
            yield
        finally:
            self._is_in_vain = False

    def hear(self, number: int, *, speaks: bool) -> None:
        """Take note of a signal; every further one changes nothing, for the state is not saved yet."""
        again, self.number = self.asked, self.number or number
        if speaks:
            name = signal.Signals(number).name
            line = "still in the step after which the state is saved" if again else "the state is saved after this step"
            # Straight to the descriptor: a signal may come in the middle of another line's printing.
            os.write(2, f"\n{name}: {line} ...\n".encode())
        if self._is_in_vain:
            self._is_in_vain = False
            raise Interrupted(self.number)


@contextmanager
def stop_on_interrupt(*, speaks: bool = False) -> Iterator[Stop]:
    """Let signals ask to stop after the step.

    Args:
        speaks: say on standard error that a signal was heard.
    """
    stop = Stop()
    before = {}

    def hear(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.hear(number, speaks=speaks)

    try:
        for number in SIGNALS:
            # Who ignores a signal, as nohup does, goes on ignoring it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, hear)
    except ValueError:  # not the main thread: signals are somebody else's
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
