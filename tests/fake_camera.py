"""Cameras that give what a test says, and fail where it says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from boxwright_runtime.video_decoding import TimedImage

IMAGE = np.zeros((20, 30, 3), dtype=np.uint8)


class Camera:
    """A connection that gives frames at some times and then fails, or ends where ``failure`` is None."""

    rate = 10.0
    expected = 0

    def __init__(self, times: Iterable[float], failure: Exception | None = None, *, is_live: bool = True) -> None:
        self.is_live, self.times, self.failure = is_live, times, failure
        self.damaged = 0
        self.given, self.closed = threading.Event(), False

    def frames(self) -> Iterator[TimedImage]:
        for one in self.times:
            yield TimedImage(one, IMAGE)
        self.given.set()
        if self.failure is not None:
            raise self.failure

    def describe_early_end(self) -> str | None:
        return None

    def close(self) -> None:
        self.closed = True


def opener(*connections: Camera | Exception) -> Callable[[str | Path], Camera]:
    """Open one connection after the other, and then none."""
    left = iter(connections)

    def open_video(source: str | Path) -> Camera:
        one = next(left, None) or OSError(f"{source}: nobody is there")
        if isinstance(one, Exception):
            raise one
        return one

    return open_video
