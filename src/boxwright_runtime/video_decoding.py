"""Videos decoded by PyAV: frames in RGB, upright, with the times that the file gives them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from boxwright_runtime.video_names import is_camera, is_stream_address, show_source

if TYPE_CHECKING:
    from jaxtyping import UInt8

_TIMEOUT = 10.0
"""Seconds after which a stream that sends nothing is lost."""

_STREAM_OPTIONS = {"rtsp": {"rtsp_transport": "tcp"}, "rtsps": {"rtsp_transport": "tcp"}}
"""Options by scheme: packets of UDP are lost where a network is busy, and frames are gray then."""

CANNOT_READ = "this video cannot be read"

_LATE_END, _LATE_END_SECONDS = 0.02, 0.5
"""Part of a video, and seconds, that may be missing at its end, as its last frame lasts for some time."""


class TimedImage(NamedTuple):
    """A frame as it was decoded.

    Args:
        time: in seconds, by the clock of the file; None where it has none.
        image: RGB, upright.
    """

    time: float | None
    image: UInt8[np.ndarray, "h w 3"]


class VideoConnection(Protocol):
    """An open video."""

    is_live: bool
    """It comes as fast as it is recorded, and has no known end."""

    rate: float
    """Frames per second, on average; a guess where nobody knows."""

    expected: int
    """Number of frames, as far as it is known; 0 where it is not."""

    damaged: int
    """Packets that could not be decoded, and frames that were decoded with errors, so far."""

    def frames(self) -> Iterator[TimedImage]:
        """Decode the frames in order."""
        ...

    def describe_early_end(self) -> str | None:
        """Describe what is missing at the end of a video that was decoded, where it is truncated."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class OpenVideo:
    """A video that PyAV has opened.

    Args:
        source: path of a file, address of a stream, or a camera.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no video, it cannot be reached, or PyAV is not installed.
    """

    def __init__(self, source: str | Path) -> None:
        text = os.fspath(source)
        self._name = show_source(text)
        self._av = _import_av()
        with video_errors(text):
            self._container = self._av.open(text, **_open_options(text))
        try:
            with video_errors(text):
                self._stream = self._choose_stream()
        except BaseException:
            self._container.close()
            raise
        self.is_live = is_camera(text) or (is_stream_address(text) and self._container.duration is None)
        self.rate = _rate_of(self._stream)
        self.expected = int(self._stream.frames) or round(self._duration(0) * self.rate)
        self.damaged = 0
        self._count = 0
        self._times: list[float] = []

    def frames(self) -> Iterator[TimedImage]:
        """Decode the frames in order.

        Raises:
            ValueError: reading fails, as where a connection is lost.
        """
        with video_errors(self._name):
            for packet in self._container.demux(self._stream):
                for frame in self._decode(packet):
                    self.damaged += bool(frame.is_corrupt)
                    self._count += 1
                    if frame.time is not None:
                        self._times = [self._times[0] if self._times else frame.time, frame.time]
                    image = turn_upright(frame.to_ndarray(format="rgb24"), _matrix_of(frame))
                    # Rows of a frame are padded.
                    yield TimedImage(frame.time, np.ascontiguousarray(image))

    def describe_early_end(self) -> str | None:
        """Describe what is missing at the end, by the number of frames and the duration that the file says it has."""
        frames = int(self._stream.frames)
        if frames and self._count >= frames * (1 - _LATE_END) - 1:
            return None
        duration = self._duration(frames)
        # From the first frame, or from the clock's zero: formats differ in what their duration is.
        end = self._times[1] - min(self._times[0], 0.0) + 1 / self.rate if self._times else 0.0
        if duration - end <= max(_LATE_END_SECONDS, _LATE_END * duration):
            return None
        return f"it ends at {end:.2f} s of {duration:.2f} s"

    def close(self) -> None:
        """Close the file, or the connection."""
        self._container.close()

    def _choose_stream(self) -> Any:
        stream = self._container.streams.best("video")
        if stream is None:
            raise ValueError("there is no video in it")
        if self._container.duration is not None:
            stream.thread_type = "AUTO"  # frames in parallel, which come a few frames later
        return stream

    def _decode(self, packet: Any) -> list[Any]:
        """Frames of a packet; none of a damaged one."""
        try:
            return list(packet.decode())
        except self._av.error.InvalidDataError:
            self.damaged += 1
            return []

    def _duration(self, frames: int) -> float:
        """Seconds from the first frame to the end, as far as the file says; 0 where it does not."""
        stream, container = self._stream, self._container
        # Of a truncated AVI, FFmpeg estimates the duration by the size of the file; a unit of its time is a frame.
        seconds = [frames * float(stream.time_base)]
        if stream.duration is not None:
            seconds.append(float(stream.duration * stream.time_base))
        elif container.duration is not None:
            seconds.append(container.duration / 1e6)
        return max(seconds)


def turn_upright(
    image: UInt8[np.ndarray, "h w 3"], matrix: tuple[float, float, float, float] | None
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Turn and mirror a frame as its display matrix says, by right angles.

    Args:
        image: as it is stored.
        matrix: (a, b, c, d): the pixel (x, y) is shown at (a x + c y, b x + d y); None for one that is upright.
    """
    if matrix is None:
        return image
    a, b, c, d = matrix
    if abs(b) > abs(a):
        image, rows, columns = image.transpose(1, 0, 2), b, c
    else:
        rows, columns = d, a
    if rows < 0:
        image = image[::-1]
    if columns < 0:
        image = image[:, ::-1]
    return image


@contextmanager
def video_errors(source: str) -> Iterator[None]:
    """Turn errors about a video into one line that names it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: anything else.
    """
    name = show_source(source)
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such video") from None
    except Exception as error:
        # Of FFmpeg's errors, some are of the kinds of Python, but not all: that of a timeout is not.
        if not isinstance(error, OSError | ValueError | _import_av().error.FFmpegError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        reason = f"nothing came for {_TIMEOUT:.0f} s" if type(error).__name__ == "ExitError" else reason
        raise ValueError(f"{name}: {CANNOT_READ}: {' '.join(reason.split())}") from error


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError("videos need PyAV: pip install 'boxwright[video]'") from error
    return av


def _open_options(source: str) -> dict[str, Any]:
    if is_camera(source):
        return {"format": "v4l2", "timeout": _TIMEOUT}
    if not is_stream_address(source):
        return {}
    return {"timeout": _TIMEOUT, "options": _STREAM_OPTIONS.get(source.partition("://")[0].lower(), {})}


def _rate_of(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or 25
    return float(rate) if 0 < rate < 1000 else 25.0


def _matrix_of(frame: Any) -> tuple[float, float, float, float] | None:
    """Display matrix of a frame, where it is not the identity."""
    if not frame.rotation and not len(frame.side_data):
        return None
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = np.frombuffer(data, dtype=np.int32).tolist()
            return (a, b, c, d)
    return None
