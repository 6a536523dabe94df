"""Times of frames, and of attempts to reach a camera again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass


class WallClock:
    """The time, and waiting."""

    def now(self) -> float:
        """Return the time in seconds since some moment."""
        return time.monotonic()

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait for some time, or until it is to stop."""
        stop.wait(seconds)


@dataclass(frozen=True)
class Reconnection:
    """Pauses before a lost connection is taken up again: each is twice the one before.

    Args:
        first: pause, in seconds.
        longest: pause.
        attempts: in a row, after which the stream is at its end; for ever where None.
    """

    first: float = 1.0
    longest: float = 60.0
    attempts: int | None = None

    def pauses(self) -> Iterator[float]:
        """Give the pauses before one attempt after the other."""
        pause, count = self.first, 0
        while self.attempts is None or count < self.attempts:
            yield pause
            pause, count = min(2 * pause, self.longest), count + 1


class Timeline:
    """Times of frames, which never go back: a clock that starts anew, or a frame without a time, goes on from the last.

    Args:
        rate: frames per second, for frames without a time.
    """

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._offset: float | None = None
        self._last: float | None = None

    def advance(self, by_clock: float | None) -> float:
        """Return the time of the next frame in seconds since the first.

        Args:
            by_clock: of the video; None where it is not known.
        """
        following = 0.0 if self._last is None else self._last + self._step
        if by_clock is None:
            self._last = following
            return following
        if self._offset is None:
            self._offset = following - by_clock
        if self._last is not None and by_clock + self._offset < self._last:
            self._offset = following - by_clock
        self._last = by_clock + self._offset
        return self._last

    def restart(self, at: float) -> None:
        """Let the next frame come at a time, or after the last one where that is later; the clock is another one."""
        self._offset = None
        if self._last is not None:
            self._last = max(self._last, at - self._step)
