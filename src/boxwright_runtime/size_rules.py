"""Sizes of resized images that keep their aspect ratio, rounded as each project rounds them."""

from __future__ import annotations

import math
from typing import Literal

SizeRule = Literal["detr", "transformers", "torchvision", "mmcv"]
"""The project whose rounding is meant. Sizes differ by a pixel or two, and a network notices."""


def resized_size(
    height: int, width: int, image_size: int, max_size: int | None, size_rule: SizeRule = "detr"
) -> tuple[int, int]:
    """Return (height, width) of an image whose shortest side becomes ``image_size``, its longest at most ``max_size``.

    - ``detr``: the longest side is rounded down; where ``max_size`` binds, the shortest is rounded first, and the
      longest follows from that. It may thus exceed ``max_size`` by what rounding adds to the shortest.
    - ``transformers``: the same, but the longest side follows from the shortest before that is rounded, and an image
      whose shortest side is right already stays as it is.
    - ``torchvision``: both sides are multiplied by one scale and rounded down. The shortest may be a pixel short.
    - ``mmcv``: both sides are multiplied by that scale and rounded to the nearest.

    **Source**: facebookresearch/detr 29901c5 (``get_size_with_aspect_ratio``); transformers 5.24, the function of that
    name; torchvision 0.29 (``GeneralizedRCNNTransform``); open-mmlab/mmcv a8073c7 (``rescale_size``). Differs where a
    side would be 0: it is 1, and by ``detr`` the longest is then ``max_size``.
    """
    short, long = sorted((height, width))
    if size_rule == "detr":
        shortest, longest = _detr(short, long, image_size, max_size)
    elif size_rule == "transformers":
        shortest, longest = _transformers(short, long, image_size, max_size)
    else:
        scale = image_size / short if max_size is None else min(image_size / short, max_size / long)
        half = 0.5 if size_rule == "mmcv" else 0.0
        shortest, longest = (max(1, math.floor(side * scale + half)) for side in (short, long))
    return (shortest, longest) if height <= width else (longest, shortest)


def letterbox_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return (height, width) of an image that just fits into a square, rounded down, at least a pixel.

    **Source**: effdet 0.4.1 (``ResizePad``).
    """
    scale = letterbox_scale(height, width, side)
    return max(1, int(height * scale)), max(1, int(width * scale))


def letterbox_scale(height: int, width: int, side: int) -> float:
    """Return the factor from pixels of an image to those of the square that it just fits into, before rounding."""
    return min(side / height, side / width)


def _detr(short: int, long: int, image_size: int, max_size: int | None) -> tuple[int, int]:
    shortest = image_size
    if max_size is not None and long / short * shortest > max_size:
        shortest = round(max_size * short / long)
    longest = int(shortest * long / short)
    if max_size is not None and shortest < 1:
        return 1, max_size
    return shortest, longest


def _transformers(short: int, long: int, image_size: int, max_size: int | None) -> tuple[int, int]:
    exact: float = image_size
    if max_size is not None and long / short * image_size > max_size:
        exact = max_size * short / long
    shortest = round(exact)
    if shortest == short:
        return short, long
    return max(1, shortest), max(1, int(exact * long / short))
