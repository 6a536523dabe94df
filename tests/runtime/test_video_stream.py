"""Live videos: frames that are dropped, connections that are taken up again; by a fake camera and a fake clock."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest

from boxwright_runtime.frame_queue import MAX_DECODED
from boxwright_runtime.video_decoding import TimedImage
from boxwright_runtime.video_stream import VideoStream
from boxwright_runtime.video_timing import Reconnection, Timeline, WallClock
from fake_camera import IMAGE, Camera, opener


class FakeClock(WallClock):
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.pauses: list[float] = []

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float, stop: threading.Event) -> None:  # noqa: ARG002
        self.pauses.append(seconds)
        self.seconds += seconds


def test_the_oldest_frames_of_a_live_video_are_dropped_and_counted() -> None:
    camera = Camera([i / 10 for i in range(50)])
    stream = VideoStream("rtsp://x", open_video=opener(camera), reconnection=Reconnection(attempts=0))
    assert camera.given.wait(10)
    frames = list(stream)
    assert [one.number for one in frames] == list(range(50 - MAX_DECODED, 50))
    assert [round(one.time, 6) for one in frames] == [4.6, 4.7, 4.8, 4.9]
    assert stream.dropped == 50 - MAX_DECODED
    assert camera.closed


def test_a_file_waits_and_drops_nothing() -> None:
    camera = Camera([i / 10 for i in range(50)], is_live=False)
    stream = VideoStream("a.mp4", open_video=opener(camera))
    assert not camera.given.wait(0.2)  # no more than a few frames are decoded ahead
    assert [one.number for one in stream] == list(range(50))
    assert stream.dropped == 0


def test_a_lost_connection_is_taken_up_again_with_growing_pauses() -> None:
    clock, lines = FakeClock(), []
    away = OSError("no route")
    connections = (Camera([7.0, 7.1], OSError("rtsp://x: reset by peer")), away, away, away, Camera([0.0, 0.1]), away)
    reconnection = Reconnection(first=1, longest=3, attempts=4)
    stream = VideoStream(
        "rtsp://me:secret@x", open_video=opener(*connections), reconnection=reconnection, clock=clock, note=lines.append
    )
    frames = list(stream)
    assert [one.number for one in frames] == [0, 1, 2, 3]
    # The times of the second connection are those of the clock: 1 + 2 + 3 + 3 seconds have passed.
    assert [round(one.time, 3) for one in frames] == [0.0, 0.1, 9.0, 9.1]
    assert clock.pauses == [1, 2, 3, 3, 1, 2, 3, 3]
    assert stream.reconnected == 1
    assert lines == [
        "rtsp://x: the connection was lost (reset by peer); trying again",
        "rtsp://x: connected again after 9 s",
        "rtsp://x: the connection was lost (it ended); trying again",
        "rtsp://x: no connection after 4 attempts, so this is the end",
    ]


def test_pauses_grow_up_to_a_minute_and_never_end() -> None:
    assert list(islice(Reconnection().pauses(), 9)) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert list(Reconnection(attempts=0).pauses()) == []


def test_an_error_at_the_beginning_is_raised_at_once() -> None:
    with pytest.raises(OSError, match="nobody is there"):
        VideoStream("rtsp://x", open_video=opener())


def test_of_a_file_that_fails_there_is_what_was_decoded() -> None:
    stream = VideoStream("a.mp4", open_video=opener(Camera([0.0, 0.1], ValueError("disk error"), is_live=False)))
    assert len(list(stream)) == 2
    assert stream.early_end == "disk error"
    with pytest.raises(ValueError, match="disk error"):
        next(VideoStream("a.mp4", open_video=opener(Camera([], ValueError("disk error"), is_live=False))))


def test_other_errors_are_not_hidden() -> None:
    stream = VideoStream("rtsp://x", open_video=opener(Camera([0.0], RuntimeError("a fault of ours"))))
    with pytest.raises(RuntimeError, match="a fault of ours"):
        list(stream)


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize("dropped", [True, False])
def test_the_thread_ends_with_the_stream(is_live: bool, dropped: bool) -> None:
    before = set(threading.enumerate())
    stream = VideoStream("x", open_video=opener(Camera([i / 10 for i in range(10**6)], is_live=is_live)))
    assert next(stream).number >= 0
    (thread,) = set(threading.enumerate()) - before
    if dropped:
        del stream
        gc.collect()
        thread.join(5)
    else:
        stream.close()
    assert not thread.is_alive()


def test_times_never_go_back() -> None:
    timeline = Timeline(rate=10)
    times = [timeline.advance(one) for one in (5.0, 5.5, 5.5, None, 5.7, 0.0, 0.25, 0.2)]
    np.testing.assert_allclose(times, [0, 0.5, 0.5, 0.6, 0.7, 0.8, 1.05, 1.15])
    timeline.restart(at=60.0)
    np.testing.assert_allclose([timeline.advance(one) for one in (900.0, 901.0)], [60, 61])
    timeline.restart(at=1.0)
    np.testing.assert_allclose(timeline.advance(0.0), 61.1)


def test_waiting_ends_where_it_is_to_stop() -> None:
    stop, begin = threading.Event(), time.monotonic()
    stop.set()
    WallClock().wait(30, stop)
    assert time.monotonic() - begin < 10


def test_frames_are_given_as_they_come() -> None:
    """A live video without an end hands out frames while it goes on."""
    endless = Camera([])
    endless.times = (index / 10 for index in count())
    stream = VideoStream("rtsp://x", open_video=opener(endless))
    numbers = [frame.number for frame in islice(stream, 5)]
    stream.close()
    assert numbers == sorted(set(numbers))


def test_frames_end_where_somebody_asks_for_it() -> None:
    wish = threading.Event()
    silent = Camera([0.0, 0.1, 0.2])
    silent.frames = lambda: _then_wait(silent, wish)  # type: ignore[method-assign]
    stream = VideoStream("rtsp://x", open_video=opener(silent), is_asked_to_stop=wish.is_set)
    assert [next(stream).number for _ in range(3)] == [0, 1, 2]
    threading.Timer(0.1, wish.set).start()
    assert list(stream) == []


def _then_wait(camera: Camera, wish: threading.Event) -> Iterator[TimedImage]:
    yield from (TimedImage(one, IMAGE) for one in camera.times)
    assert wish.wait(30)
