"""Random changes of color, folded into one affine map of RGB."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

BRIGHTNESS = (0.875, 1.125)
CONTRAST = (0.5, 1.5)
SATURATION = (0.5, 1.5)
HUE = (-0.05, 0.05)
"""Ranges that the factors are drawn from; hue in turns of the color circle."""

LUMA = np.array([0.2989, 0.587, 0.114])
"""Weights of red, green and blue in the gray value (ITU-R BT.601)."""

ColorMap = Float64[np.ndarray, "4 4"]
"""Maps (red, green, blue, 1), in bytes; the last row is (0, 0, 0, 1), so that maps compose by ``@``."""


def brightness(factor: float) -> ColorMap:
    """Scale all channels."""
    return np.diag([factor, factor, factor, 1.0])


def contrast(factor: float, gray: float) -> ColorMap:
    """Scale the distance from ``gray``, the mean gray value of the image at this point."""
    color_map = brightness(factor)
    color_map[:3, 3] = (1 - factor) * gray
    return color_map


def saturation(factor: float) -> ColorMap:
    """Scale the distance of each pixel from its own gray value."""
    color_map = np.eye(4)
    color_map[:3, :3] = factor * np.eye(3) + (1 - factor) * LUMA
    return color_map


def hue(turns: float) -> ColorMap:
    """Turn colors around the gray axis (1, 1, 1)."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    ahead, behind = (1 - cos) / 3 + sin / math.sqrt(3), (1 - cos) / 3 - sin / math.sqrt(3)
    color_map = np.eye(4)
    for row in range(3):
        color_map[row, row] = cos + (1 - cos) / 3
        color_map[row, (row + 1) % 3] = behind
        color_map[row, (row + 2) % 3] = ahead
    return color_map


def draw_color_map(
    rng: np.random.Generator, probability: float, shuffle: float, mean: Float64[np.ndarray, "rgb=3"]
) -> ColorMap:
    """Draw a change of brightness, contrast, saturation and hue, then of the order of the channels.

    **Source**: SSD (Liu et al., ECCV 2016, section 3.6) as torchvision's v2.RandomPhotometricDistort draws
    it: the same ranges, order and probabilities. Differs in that values are clipped once, at the end, and in that
    hue turns around the gray axis: of all linear maps the nearest to HSV's, its angle within 2.3 of at most 18
    degrees, and it keeps the mean of the channels, where HSV keeps the largest.

    Args:
        rng: the only source of chance.
        probability: of each of the four changes.
        shuffle: probability that the channels are permuted.
        mean: color of the image, in bytes.
    """

    def drawn(low_high: tuple[float, float]) -> float | None:
        value = rng.uniform(*low_high)
        return value if rng.random() < probability else None

    bright, spread, chroma, turns = drawn(BRIGHTNESS), drawn(CONTRAST), drawn(SATURATION), drawn(HUE)
    spread_first = rng.random() < 0.5

    def spread_after(color_map: ColorMap) -> ColorMap:
        gray = float(LUMA @ (color_map @ np.append(mean, 1.0))[:3])
        return color_map if spread is None else contrast(spread, gray) @ color_map

    color_map = np.eye(4) if bright is None else brightness(bright)
    if spread_first:
        color_map = spread_after(color_map)
    if chroma is not None:
        color_map = saturation(chroma) @ color_map
    if turns is not None:
        color_map = hue(turns) @ color_map
    if not spread_first:
        color_map = spread_after(color_map)
    if rng.random() < shuffle:
        color_map = color_map[[*rng.permutation(3), 3]]
    return color_map


def change_colors(
    image: UInt8[Tensor, "3 h w"] | Float32[Tensor, "3 h w"], color_map: ColorMap
) -> UInt8[Tensor, "3 h w"] | Float32[Tensor, "3 h w"]:
    """Map every pixel and clip it to [0, 255]; round bytes to bytes."""
    is_bytes = image.dtype == torch.uint8
    linear = torch.from_numpy(color_map[:3, :3]).float()
    offset = torch.from_numpy(color_map[:3, 3:]).float() + (0.5 if is_bytes else 0.0)
    pixels = torch.addmm(offset, linear, image.flatten(1).float())  # 3 h w -> 3 (h w)
    return pixels.clamp_(0, 255).to(image.dtype).view_as(image)
