"""Frames between the thread that decodes a video and whoever takes them: a few, and of a live video the newest."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

MAX_DECODED = 4
"""Frames that are decoded ahead; of a live video, the newest ones."""


_PATIENCE = 0.2
"""Seconds of waiting for a frame after which somebody may have asked to stop."""


class Frame(NamedTuple):
    """A frame of a video.

    Args:
        number: from 0; frames that were dropped are counted.
        time: in seconds since the first frame.
        image: RGB, upright.
    """

    number: int
    time: float
    image: UInt8[np.ndarray, "h w 3"]


class FrameQueue:
    """Frames between two threads, ``MAX_DECODED`` of them at most, and lines that say what happened.

    Args:
        drops: the oldest frame makes room for a new one; otherwise the new one waits.
    """

    def __init__(self, drops: bool) -> None:
        self.dropped = 0
        self.stopped = threading.Event()
        self._drops = drops
        self._frames: deque[Frame] = deque()
        self._lines: deque[str] = deque()
        self._finished = False
        self._failure: Exception | None = None
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> bool:
        """Add a frame; return False where nobody takes any more."""
        with self._changed:
            if self._drops and len(self._frames) == MAX_DECODED:
                self._frames.popleft()
                self.dropped += 1
            self._changed.wait_for(lambda: len(self._frames) < MAX_DECODED or self.stopped.is_set())
            self._frames.append(frame)
            self._changed.notify_all()
            return not self.stopped.is_set()

    def tell(self, line: str) -> None:
        """Add a line."""
        with self._changed:
            self._lines.append(line)
            self._changed.notify_all()

    def finish(self, failure: Exception | None) -> None:
        """Add the end, or an error."""
        with self._changed:
            self._finished, self._failure = True, failure
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the thread that adds frames end."""
        with self._changed:
            self.stopped.set()
            self._changed.notify_all()

    def take(self, note: Callable[[str], None], is_asked_to_stop: Callable[[], bool]) -> Frame | None:
        """Take the next frame, after the lines before it; None at the end, or where it is to stop.

        Raises:
            Exception: the one that ended the video.
        """
        while not is_asked_to_stop():
            with self._changed:
                while not self._changed.wait_for(self._has_something, timeout=_PATIENCE):
                    if is_asked_to_stop():
                        return None
                lines = list(self._lines)
                self._lines.clear()
                frame = self._frames.popleft() if self._frames and not lines else None
                is_end = not (lines or frame or self._frames)
                self._changed.notify_all()
            for line in lines:
                note(line)
            if frame is not None:
                return frame
            if is_end:
                failure, self._failure = self._failure, None
                if failure is not None:
                    raise failure
                return None
        return None

    def _has_something(self) -> bool:
        return bool(self._lines or self._frames or self._finished or self.stopped.is_set())
