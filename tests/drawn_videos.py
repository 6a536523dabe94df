"""Small videos for tests: the red of a frame says its number, four gray levels its corners."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

CORNERS = (40, 100, 160, 220)
"""Levels of green and blue: upper left, upper right, lower left, lower right."""


def write_video(
    path: Path, times: Sequence[float], *, size: tuple[int, int] = (97, 65), codec: str = "mpeg4", rate: int = 30
) -> Path:
    """Write a video of one frame for each time, in seconds; of (width, height)."""
    return write_images(path, times, [draw_frame(number, size) for number in range(len(times))], codec=codec, rate=rate)


def write_images(
    path: Path, times: Sequence[float], images: Sequence[np.ndarray], *, codec: str = "mpeg4", rate: int = 30
) -> Path:
    """Write a video of some images."""
    av = pytest.importorskip("av", reason="PyAV, of the extra video, is not installed")
    options = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, options={"qscale": "2"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = {"mjpeg": "yuvj444p", "ffv1": "bgr0"}.get(codec, "yuv420p")
        # AVI counts in frames; other files in ms.
        unit = Fraction(1, rate) if path.suffix == ".avi" else Fraction(1, 1000)
        stream.codec_context.time_base = unit
        for time, image in zip(times, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = round(time / float(unit)), unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def draw_frame(number: int, size: tuple[int, int]) -> np.ndarray:
    """Draw the frame of a number."""
    width, height = size
    image = np.empty((height, width, 3), dtype=np.uint8)
    top, left = np.arange(height)[:, None] < height // 2, np.arange(width) < width // 2
    level = np.where(top, np.where(left, CORNERS[0], CORNERS[1]), np.where(left, CORNERS[2], CORNERS[3]))
    image[...] = level[..., None]
    image[..., 0] = np.clip(level + number % 8 * 4, 0, 255)
    return image


def corners_of(image: np.ndarray) -> list[int]:
    """Read the level of each corner, to the nearest of ``CORNERS``."""
    height, width = image.shape[:2]
    rows, columns = (height // 4, height - height // 4), (width // 4, width - width // 4)
    levels = [int(image[row, column, 2]) for row in rows for column in columns]
    return [min(CORNERS, key=lambda corner: abs(corner - level)) for level in levels]


def turn_file(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an MP4 file with another display matrix (a, b, c, d)."""
    content = bytearray(source.read_bytes())
    header = content.index(b"tkhd") + 4
    begin = header + 40
    a, b, c, d = (value << 16 for value in matrix)
    content[begin : begin + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(content)
    return target
