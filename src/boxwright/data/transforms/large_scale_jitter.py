"""Large-scale jitter: images of random size in an input of fixed size."""

from __future__ import annotations

import math

import numpy as np

from boxwright_runtime.input_format import ResizeRule, Window


def large_scale_jitter(
    height: int, width: int, resize_rule: ResizeRule, scale_range: tuple[float, float], rng: np.random.Generator
) -> tuple[Window, tuple[int, int]]:
    """Draw the part of an image at a random scale that a square input shows, and return it with the input size.

    The scale is drawn evenly; at 1, the image is as large as evaluation shows it. Of a side that is longer than the
    input, a random part is shown; a shorter one begins at the input's left or top edge.

    **Source**: Ghiasi et al., "Simple Copy-Paste", CVPR 2021, and Du et al., "Simple Training Strategies and Model
    Scaling for Object Detection", 2021 (large-scale jitter); tensorflow/tpu 068fa832e (``resize_and_crop_image``). The
    same sizes but for rounding, and the same positions, where evaluation fits images into a square: ``shortest_side``
    with a ``max_size`` equal to ``image_size``, or ``letterbox``. Differs in that the rest of the input is black, not
    the mean color, but for ``letterbox``; and, as mirroring comes after it, at the other edge of a mirrored input.
    torchvision's ScaleJitter and FixedSizeCrop (0055d83ce) and detectron2's ResizeScale and FixedSizeCrop (084acd0f7)
    have these sizes too, but one random number for the positions on both axes.

    Args:
        height: of the image.
        width: of the image.
        resize_rule: of this step; the side of the input is its ``image_size``, whatever the image's shape is.
        scale_range: least and largest scale.
        rng: the only source of chance.
    """
    side = resize_rule.image_size
    resized = resized_image_size(height, width, resize_rule, rng.uniform(*scale_range))
    top, left = (int(rng.integers(max(length - side, 0) + 1)) for length in resized)
    return jitter_window(height, width, resized, (top, left), side), (side, side)


def check_scales(name: str, scales: tuple[float, float]) -> None:
    """Check that an option is a range of scales.

    Raises:
        ValueError: it is not.
    """
    if len(scales) != 2 or not 0 < scales[0] <= scales[1] < math.inf:
        raise ValueError(f"{name} is the least and the largest scale, greater than 0; got {scales}")


def resized_image_size(height: int, width: int, resize_rule: ResizeRule, scale: float) -> tuple[int, int]:
    """Return (height, width) of an image that is ``scale`` times as large as in evaluation; at least a pixel."""
    x1, y1, x2, y2 = resize_rule.window(height, width)
    rows, columns = resize_rule.input_size(height, width)
    return max(1, round(scale * rows * height / (y2 - y1))), max(1, round(scale * columns * width / (x2 - x1)))


def jitter_window(height: int, width: int, resized: tuple[int, int], offset: tuple[int, int], side: int) -> Window:
    """Return the part of an image that a square input shows once the image is resized.

    Args:
        height: of the image.
        width: of the image.
        resized: (height, width) that the image is resized to.
        offset: (top, left) of the input in the resized image.
        side: of the input.
    """
    (top, left), (rows, columns) = offset, resized
    return Window(
        left * width / columns, top * height / rows, (left + side) * width / columns, (top + side) * height / rows
    )
