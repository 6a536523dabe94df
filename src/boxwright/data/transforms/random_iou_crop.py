"""Crops that overlap an object by a random least IoU."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64

from boxwright_runtime.input_format import Window

CROP_OPTIONS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""Least IoUs of a crop with some object that are drawn from; 1 leaves the image whole."""

CROP_SCALE = (0.3, 1.0)
CROP_ASPECT = (0.5, 2.0)
CROP_TRIALS = 40


def random_iou_crop(
    window: Window, height: int, width: int, boxes: Float32[np.ndarray, "n 4"], rng: np.random.Generator
) -> tuple[Window, Bool[np.ndarray, " n"]]:
    """Draw a part of a window, and find the boxes that have their center in it.

    A least IoU is drawn; then up to forty parts of random size and position, until one has the center of some
    box inside and that least IoU with it; failing that, another least IoU. One of the choices is to crop
    nothing.

    Args:
        window: the part of the image that may be shown.
        height: of the image.
        width: of the image.
        boxes: corner boxes in pixels of the image; where there are none, the whole image serves as one.
        rng: the only source of chance.
    """
    objects = boxes if len(boxes) else np.array([[0, 0, width, height]], dtype=np.float32)
    while True:
        least = CROP_OPTIONS[rng.integers(len(CROP_OPTIONS))]
        if least >= 1:
            return window, np.ones(len(boxes), dtype=bool)
        parts = _draw_parts(window, rng)
        centered = _centers_within(objects, parts)
        best = np.where(centered, _pairwise_iou(parts, objects), -1.0).max(1)
        valid = np.flatnonzero((best >= least) & centered.any(1))
        if len(valid):
            part = parts[valid[0]]
            return Window(*part.tolist()), _centers_within(boxes, part[None])[0]


def _draw_parts(window: Window, rng: np.random.Generator) -> Float64[np.ndarray, "trials 4"]:
    """Draw crops with whole-number sides, all trials at once, without those too narrow or too flat."""
    x1, y1, x2, y2 = window
    low, high = CROP_SCALE
    scales, positions = rng.uniform(low, high, (CROP_TRIALS, 2)), rng.random((CROP_TRIALS, 2))
    sides = np.floor(np.array([x2 - x1, y2 - y1]) * scales)
    corners = np.array([x1, y1]) + np.floor((np.array([x2 - x1, y2 - y1]) - sides) * positions)
    aspect_ratios = sides[:, 0] / np.maximum(sides[:, 1], 1)
    narrowest, widest = CROP_ASPECT
    fits = (aspect_ratios >= narrowest) & (aspect_ratios <= widest) & (sides >= 1).all(1)
    return np.concatenate((corners, corners + sides), axis=1)[fits]


def _centers_within(boxes: Float32[np.ndarray, "n 4"], parts: Float64[np.ndarray, "p 4"]) -> Bool[np.ndarray, "p n"]:
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside: Bool[np.ndarray, "p n"] = ((parts[:, None, :2] < centers) & (centers < parts[:, None, 2:])).all(-1)
    return inside


def _pairwise_iou(parts: Float64[np.ndarray, "p 4"], boxes: Float32[np.ndarray, "n 4"]) -> Float64[np.ndarray, "p n"]:
    """Compute IoUs in NumPy, unlike ``ops.boxes``: a worker spends its time here on calls, not on numbers."""
    low = np.maximum(parts[:, None, :2], boxes[:, :2])
    high = np.minimum(parts[:, None, 2:], boxes[:, 2:])
    shared = (high - low).clip(0, None).prod(-1)
    union = (parts[:, 2:] - parts[:, :2]).prod(-1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - shared
    ratio: Float64[np.ndarray, "p n"] = shared / union
    return ratio
