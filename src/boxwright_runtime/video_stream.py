"""Videos on their way to a model: decoded ahead in a thread, and live ones never behind the time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from boxwright_runtime.frame_queue import Frame, FrameQueue
from boxwright_runtime.video_decoding import CANNOT_READ, OpenVideo, TimedImage, VideoConnection
from boxwright_runtime.video_names import show_source
from boxwright_runtime.video_timing import Reconnection, Timeline, WallClock


class VideoStream(Iterator[Frame]):
    """Frames of a video file, of a stream or of a camera, one after the other.

    A thread decodes ahead; it ends with the stream. It waits where a file's frames are not taken as fast, and drops the
    oldest where a live video's are not. A connection that is lost is taken up again.

    Args:
        source: path of a file, address of a stream, or a camera.
        note: called, as frames are taken, with lines that say what happened: a connection was lost.
        reconnection: of live videos.
        open_video: opens it, each time.
        clock: the time, by which live videos go on after a pause.
        is_asked_to_stop: is asked from time to time; frames end where it says so.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, cannot be reached, or PyAV is not installed.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        note: Callable[[str], None] = lambda _: None,
        reconnection: Reconnection | None = None,
        open_video: Callable[[str | Path], VideoConnection] = OpenVideo,
        clock: WallClock | None = None,
        is_asked_to_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.source, self._note, self._is_asked_to_stop = source, note, is_asked_to_stop
        connection = open_video(source)
        self.is_live, self.rate, self.expected = connection.is_live, connection.rate, connection.expected
        self._queue = FrameQueue(self.is_live)
        reopen = _Reopening(source, open_video, reconnection or Reconnection(), clock or WallClock())
        self._decoder = _Decoder(self._queue, reopen, self.rate)
        # Nothing of the thread refers to the stream: whoever drops it ends the thread.
        self._thread = threading.Thread(
            target=self._decoder.run, args=(connection,), name="video-decoding", daemon=True
        )
        self._thread.start()
        self._ended = weakref.finalize(self, self._queue.stop)

    def __next__(self) -> Frame:
        frame = self._queue.take(self._note, self._is_asked_to_stop)
        if frame is None:
            self.close()
            raise StopIteration
        return frame

    @property
    def dropped(self) -> int:
        """Number of frames that were dropped, as they came too fast."""
        return self._queue.dropped

    @property
    def damaged(self) -> int:
        """Number of packets that could not be decoded, and of frames that were decoded with errors."""
        return self._decoder.damaged

    @property
    def reconnected(self) -> int:
        """Number of times that a lost connection was taken up again."""
        return self._decoder.reconnected

    @property
    def early_end(self) -> str | None:
        """Description of what is missing at the end of a truncated file, once its end was reached."""
        return self._decoder.early_end

    def close(self) -> None:
        """Stop decoding; a stream that sends nothing is left to its thread, which ends by itself."""
        self._queue.stop()
        self._thread.join(timeout=2.0)


class _Reopening:
    """Attempts to take up a lost connection again.

    Args:
        source: that is opened.
        open_video: opens it.
        reconnection: pauses.
        clock: the time.
    """

    def __init__(
        self,
        source: str | Path,
        open_video: Callable[[str | Path], VideoConnection],
        reconnection: Reconnection,
        clock: WallClock,
    ) -> None:
        self.name, self.clock = show_source(source), clock
        self._source, self._open, self._reconnection = source, open_video, reconnection

    def open(self, failure: Exception | None, queue: FrameQueue) -> VideoConnection | None:
        """Open the video again, after pauses; return None where it is to stop, or no attempt is left.

        Args:
            failure: that ended the last connection, if any.
            queue: is told about it, and says whether to stop.
        """
        lost = self.clock.now()
        reason = (
            "it ended"
            if failure is None
            else str(failure).removeprefix(f"{self.name}: ").removeprefix(f"{CANNOT_READ}: ")
        )
        queue.tell(f"{self.name}: the connection was lost ({reason}); trying again")
        for pause in self._reconnection.pauses():
            self.clock.wait(pause, queue.stopped)
            if queue.stopped.is_set():
                return None
            try:
                connection = self._open(self._source)
            except (OSError, ValueError):
                continue
            queue.tell(f"{self.name}: connected again after {self.clock.now() - lost:.0f} s")
            return connection
        queue.tell(f"{self.name}: no connection after {self._reconnection.attempts} attempts, so this is the end")
        return None


class _Decoder:
    """Decoding, in a thread.

    Args:
        queue: of the frames.
        reopening: of a live video.
        rate: frames per second, where they have no times.
    """

    def __init__(self, queue: FrameQueue, reopening: _Reopening, rate: float) -> None:
        self.damaged = 0
        self.reconnected = 0
        self.early_end: str | None = None
        self._queue, self._reopening = queue, reopening
        self._timeline = Timeline(rate)
        self._count = 0
        self._began = 0.0

    def run(self, connection: VideoConnection) -> None:
        """Decode until the end."""
        try:
            failure = self._decode(connection)
            if connection.is_live:
                self._go_on(failure)
            elif self._count and failure is not None:
                self.early_end = str(failure)
                failure = None
            self._queue.finish(None if connection.is_live else failure)
        except Exception as error:  # of any kind: it is raised where frames are taken
            self._queue.finish(error)

    def _go_on(self, failure: Exception | None) -> None:
        """Decode one connection after the other."""
        while not self._queue.stopped.is_set():
            connection = self._reopening.open(failure, self._queue)
            if connection is None:
                return
            self.reconnected += 1
            self._timeline.restart(self._reopening.clock.now() - self._began)
            failure = self._decode(connection)

    def _decode(self, connection: VideoConnection) -> Exception | None:
        """Decode a connection to its end, and return the error that ended it."""
        before = self.damaged
        try:
            for one in connection.frames():
                self.damaged = before + connection.damaged
                if not self._queue.put(self._number(one)):
                    return None
            self.damaged = before + connection.damaged
            self.early_end = None if connection.is_live else connection.describe_early_end()
        except (OSError, ValueError) as error:
            return error
        finally:
            connection.close()
        return None

    def _number(self, one: TimedImage) -> Frame:
        if not self._count:
            self._began = self._reopening.clock.now()
        self._count += 1
        return Frame(self._count - 1, self._timeline.advance(one.time), one.image)
