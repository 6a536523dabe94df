"""Drawn videos: MPEG-4 part 2, by FFmpeg's own encoder, which is free of the GPL."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

CODEC = "mpeg4"

_UNIT = Fraction(1, 1000)
"""Of the times of frames, in seconds."""

_QUALITY = 3 * 118
"""Quantizer 3 of 1 (best) to 31, in FFmpeg's units: lines and letters stay sharp."""


class VideoFile:
    """A video that is written frame by frame, each with its time.

    As a context, it is complete at its end.

    Args:
        path: of the file.
        container: ``mp4``; or ``matroska``, which can be read before it is complete, and whose index stays small.
        rate: frames per second, on average; players show it.
    """

    def __init__(self, path: Path, container: str, rate: float) -> None:
        import av

        self._av, self._rate = av, rate
        self._file = av.open(str(path), "w", format=container)
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._stream is not None:
                self._file.mux(self._stream.encode())
        finally:
            self._file.close()

    def write(self, time: float, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Add a frame.

        Args:
            time: in seconds; a frame that is not later than the last one comes a millisecond after it.
            image: RGB; resized to the first one where it has another size.
        """
        if self._stream is None:
            self._stream = self._begin(image.shape[1], image.shape[0])
        self._last = max(self._last + 1, round(time / _UNIT))
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
        frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
        frame.pts, frame.time_base = self._last, _UNIT
        self._file.mux(self._stream.encode(frame))

    def _begin(self, width: int, height: int) -> Any:
        options = {"flags": "+qscale", "global_quality": str(_QUALITY)}
        rate = Fraction(self._rate).limit_denominator(1001)
        stream: Any = self._file.add_stream(CODEC, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _UNIT
        return stream
