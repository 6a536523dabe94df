"""DETR's crop of random size, and its random scales."""

from __future__ import annotations

import numpy as np

from boxwright.data.crop import CropRegion
from boxwright_runtime.input_format import ResizeRule, Window

SCALE_STEP = 0.04
"""Difference between the shortest sides that are drawn, as a fraction of the image size: 32 pixels of 800."""

FIRST_SCALES = (0.5, 0.625, 0.75)
"""Shortest sides, as fractions of the image size, at which an image is cropped: 400, 500 and 600 pixels of 800."""

CROP_SIDES = (0.48, 0.75)
"""Least and largest side of a crop at that scale, as fractions of the image size: 384 and 600 pixels of 800."""


def random_size_crop(height: int, width: int, resize_rule: ResizeRule, rng: np.random.Generator) -> CropRegion:
    """Draw a part of an image, of 0.48 to 0.75 times the image size, as if the image were resized first.

    That first resizing is only calculated: the window's edges are whole pixels of the image itself, so that it is
    resampled once and exactly.

    **Source**: facebookresearch/detr 29901c5 (``RandomResize([400, 500, 600])``, then ``RandomSizeCrop(384, 600)``),
    with every size as a fraction of the image size, 800 there. Differs in the rounding of the window.

    Args:
        height: of the image.
        width: of the image.
        resize_rule: size of the network input in this step.
        rng: the only source of chance.
    """
    scale = FIRST_SCALES[rng.integers(len(FIRST_SCALES))]
    # Here, as in the original, no side is too long. Nor is one too short: the image need not fit into a square yet.
    resize = "shortest_side" if resize_rule.resize == "letterbox" else resize_rule.resize
    first = resize_rule._replace(image_size=scale_size(resize_rule.image_size, scale), resize=resize, max_size=None)
    resized_height, resized_width = first.input_size(height, width)
    least, largest = (scale_size(resize_rule.image_size, fraction) for fraction in CROP_SIDES)
    part_width = int(rng.integers(least, min(resized_width, largest) + 1))
    part_height = int(rng.integers(least, min(resized_height, largest) + 1))
    top = int(rng.integers(resized_height - part_height + 1))
    left = int(rng.integers(resized_width - part_width + 1))
    y1, y2 = _whole_pixels(top, part_height, height, resized_height)
    x1, x2 = _whole_pixels(left, part_width, width, resized_width)
    return CropRegion(Window(x1, y1, x2, y2), part_height, part_width)


def draw_scale(scale_range: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw one of the scales from the least on, in steps of 0.04, up to the largest; a single one is not drawn."""
    least, largest = scale_range
    count = int((largest - least) / SCALE_STEP + 1e-6) + 1
    return least if count == 1 else least + SCALE_STEP * int(rng.integers(count))


def scale_size(image_size: int, scale: float) -> int:
    """Return a scaled size in whole pixels, at least one."""
    return max(1, round(image_size * scale))


def _whole_pixels(first: int, length: int, side: int, resized: int) -> tuple[float, float]:
    """Return the edges on a side of a part of the resized side, rounded, at least one pixel apart."""
    start = min(int(first * side / resized + 0.5), side - 1)
    stop = max(int((first + length) * side / resized + 0.5), start + 1)
    return float(start), float(stop)
