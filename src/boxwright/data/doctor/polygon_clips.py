"""Outlines clipped to their image."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64

_BEYOND = 1e-6
"""Pixels beyond the image from which on a polygon is clipped."""


def clip_segmentation(segmentation: Any, width: int, height: int) -> Any:
    """Clip the polygons of a segmentation to the image; run lengths, which end there, are as they are.

    Returns:
        the segmentation itself where nothing of it is beyond the image; None where nothing is left.
    """
    parts = _read_polygons(segmentation)
    size = np.array([width, height], dtype=np.float64)
    if parts is None or all(((part >= -_BEYOND) & (part <= size + _BEYOND)).all() for part in parts):
        return segmentation
    clipped = [clip_polygon(part, size) for part in parts]
    return [part.ravel().tolist() for part in clipped if len(part) >= 3] or None


def outline_area(segmentation: Any) -> float | None:
    """Return the area of polygons, each counted for itself; None for other segmentations, and broken ones."""
    parts = _read_polygons(segmentation)
    if parts is None:
        return None
    pairs = ((points, np.roll(points, -1, 0)) for points in parts)
    return sum(abs(float((one[:, 0] * two[:, 1] - two[:, 0] * one[:, 1]).sum())) / 2 for one, two in pairs)


def _read_polygons(segmentation: Any) -> list[Float64[np.ndarray, "_n 2"]] | None:
    if not isinstance(segmentation, list):
        return None
    try:
        return [np.array(part, dtype=np.float64).reshape(-1, 2) for part in segmentation]
    except (TypeError, ValueError):  # a fault of its own
        return None


def clip_polygon(points: Float64[np.ndarray, "n 2"], size: Float64[np.ndarray, "xy=2"]) -> Float64[np.ndarray, "m 2"]:
    """Return the part of a polygon inside a rectangle from (0, 0) to ``size``; empty where there is none.

    Source: Sutherland and Hodgman, Reentrant Polygon Clipping (1974). Parts of a polygon that leave the rectangle
    between each other stay joined by lines along its edge, which have no area.
    """
    for axis, edge, sign in ((0, 0.0, 1), (0, size[0], -1), (1, 0.0, 1), (1, size[1], -1)):
        kept: list[np.ndarray] = []
        for start, end in zip(np.roll(points, 1, 0), points, strict=True):
            is_start, is_end = sign * (start[axis] - edge) >= 0, sign * (end[axis] - edge) >= 0
            if is_start != is_end:
                crossing = start + (end - start) * ((edge - start[axis]) / (end[axis] - start[axis]))
                crossing[axis] = edge
                kept.append(crossing)
            if is_end:
                kept.append(end)
        points = np.array(kept, dtype=np.float64).reshape(-1, 2)
    return points
