"""DETR's crop of random size, and its random scales."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from boxwright.data.input_format import ResizeRule, Window

SCALE_STEP = 0.04
"""Between the shortest sides that are drawn, as a share of the image size: 32 pixels of 800."""

FIRST_SCALES = (0.5, 0.625, 0.75)
"""Shortest sides, as shares of the image size, at which an image is cropped: 400, 500 and 600 pixels of 800."""

CROP_SIDES = (0.48, 0.75)
"""Least and largest side of a crop at that scale, as shares of the image size: 384 and 600 pixels of 800."""


class Part(NamedTuple):
    """What is shown of an image; the canvas has the proportions of ``height`` and ``width``."""

    window: Window
    height: int
    width: int


def random_size_crop(height: int, width: int, resize_rule: ResizeRule, rng: np.random.Generator) -> Part:
    """A random part of an image, of 0.48 to 0.75 times the image size, as if the image were resized first.

    The resizing is only reckoned with: the window's edges are whole pixels of the image itself, so that it is
    resampled once and exactly.

    **Source**: facebookresearch/detr 29901c5 (``RandomResize([400, 500, 600])``, then ``RandomSizeCrop(384, 600)``),
    with every size as a share of the image size, 800 there. Differs in the rounding of the window.

    Args:
        height: of the image.
        width: likewise.
        resize_rule: of this step's canvases.
        rng: the only source of chance.
    """
    scale = FIRST_SCALES[rng.integers(len(FIRST_SCALES))]
    # Here, as in the original, no side is too long.
    first = ResizeRule(scaled(resize_rule.image_size, scale), resize_rule.resize)
    resized_height, resized_width = first.canvas(height, width)
    least, largest = (scaled(resize_rule.image_size, share) for share in CROP_SIDES)
    part_width = int(rng.integers(least, min(resized_width, largest) + 1))
    part_height = int(rng.integers(least, min(resized_height, largest) + 1))
    top = int(rng.integers(resized_height - part_height + 1))
    left = int(rng.integers(resized_width - part_width + 1))
    y1, y2 = _whole_pixels(top, part_height, height, resized_height)
    x1, x2 = _whole_pixels(left, part_width, width, resized_width)
    return Part(Window(x1, y1, x2, y2), part_height, part_width)


def draw_scale(scale_range: tuple[float, float], rng: np.random.Generator) -> float:
    """One of the scales from the least on, in steps of 0.04, up to the largest; without chance where there is one."""
    least, largest = scale_range
    count = int((largest - least) / SCALE_STEP + 1e-6) + 1
    return least if count == 1 else least + SCALE_STEP * int(rng.integers(count))


def scaled(image_size: int, scale: float) -> int:
    """A size in whole pixels, at least one."""
    return max(1, round(image_size * scale))


def _whole_pixels(first: int, length: int, side: int, resized: int) -> tuple[float, float]:
    """Where a part of a resized side lies on the side itself, rounded, at least one pixel long."""
    start = min(int(first * side / resized + 0.5), side - 1)
    stop = max(int((first + length) * side / resized + 0.5), start + 1)
    return float(start), float(stop)
