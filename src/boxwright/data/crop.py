"""Crops: parts of images that become network inputs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from torch import Tensor

from boxwright.data.images import resample
from boxwright_runtime.input_format import DEFAULT_RESAMPLING, Resampling, Window


class CropRegion(NamedTuple):
    """A part of an image; the network input has the proportions of ``height`` and ``width``."""

    window: Window
    height: int
    width: int


class Crop(NamedTuple):
    """A window of an image, resized to the network input and perhaps mirrored.

    Args:
        window: the part of the image.
        input_size: (height, width) of the network input.
        flip_x: left and right change sides.
        flip_y: top and bottom change sides.
    """

    window: Window
    input_size: tuple[int, int]
    flip_x: bool = False
    flip_y: bool = False

    def render(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        resampling: Resampling = DEFAULT_RESAMPLING,
        fill: tuple[int, int, int] = (0, 0, 0),
    ) -> (
        UInt8[Tensor, "3 {self.input_size[0]} {self.input_size[1]}"]
        | Float32[Tensor, "3 {self.input_size[0]} {self.input_size[1]}"]
    ):
        """Resize the window to the network input; ``fill`` where the window lies outside the image."""
        pixels = resample(image, self.window, *self.input_size, fill, resampling)
        axes = [axis for axis, flipped in ((1, self.flip_y), (2, self.flip_x)) if flipped]
        return pixels.flip(axes) if axes else pixels

    def boxes(self, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 4"]:
        """Move corner boxes from pixels of the image to pixels of the network input, and clip them to it."""
        x1, y1, x2, y2 = self.window
        height, width = self.input_size
        size = np.array([width, height] * 2)
        moved = ((boxes - np.array([x1, y1] * 2)) * (size / np.array([x2 - x1, y2 - y1] * 2))).clip(0, size)
        if self.flip_x:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        if self.flip_y:
            moved[:, [1, 3]] = height - moved[:, [3, 1]]
        clipped: Float32[np.ndarray, "n 4"] = moved.astype(np.float32)
        return clipped

    def visible_area(self, height: int, width: int) -> tuple[slice, slice]:
        """Return rows and columns of the network input that show an image of this size, rounded as by ``resample``."""
        x1, y1, x2, y2 = self.window
        return (
            _visible_span(y1, y2, height, self.input_size[0], flipped=self.flip_y),
            _visible_span(x1, x2, width, self.input_size[1], flipped=self.flip_x),
        )


def _visible_span(start: float, stop: float, length: int, size: int, *, flipped: bool) -> slice:
    scale = size / (stop - start)
    first = max(0, int((max(start, 0) - start) * scale + 0.5))
    last = min(size, int((min(stop, length) - start) * scale + 0.5))
    return slice(size - last, size - first) if flipped else slice(first, last)
