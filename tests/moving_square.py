"""A video of a bright square that crosses the frame, for the detector that sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from drawn_videos import write_images

SIZE = (128, 64)
SIDE = 16


def square_at(time: float) -> tuple[float, float, float, float]:
    """Box of the square at some time: 24 pixels per second to the right."""
    left = 8 + 24 * time
    return left, 24.0, left + SIDE, 24.0 + SIDE


def write_moving_square(path: Path, times: Sequence[float]) -> Path:
    """Write the video, without losses."""
    images = []
    for time in times:
        image = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
        x1, y1, x2, y2 = (round(side) for side in square_at(time))
        image[y1:y2, x1:x2] = 255
        images.append(image)
    return write_images(path, times, images, codec="ffv1")
