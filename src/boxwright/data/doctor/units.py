"""Boxes in another form than the file's format says: corners, centers, swapped axes, fractions or percentages.

Recognized over a whole split: read as they stand, the boxes do not fit into their images; read another way, they do.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind

CORNERS_AS_SIZES = FindingKind(
    "corners_as_sizes",
    "error",
    "splits have boxes that are corners (x1, y1, x2, y2) where left, top, width, height belong",
    "subtract the first corner from the second, or export again",
)
CENTERS_AS_CORNERS = FindingKind(
    "centers_as_corners",
    "error",
    "splits have boxes that begin with their center where left and top belong",
    "subtract half of width and height, or export again",
)
SWAPPED_AXES = FindingKind(
    "swapped_axes",
    "error",
    "splits have boxes with x and y swapped",
    "swap them (top, left, height, width), or export again",
)
FRACTIONS_AS_PIXELS = FindingKind(
    "fractions_as_pixels",
    "error",
    "splits have boxes in 0..1 where pixels belong",
    "multiply them by the width and height of their images",
)
PERCENTAGES_AS_PIXELS = FindingKind(
    "percentages_as_pixels",
    "warning",
    "splits have boxes that all lie in 0..100, in larger images: percentages where pixels belong?",
    "multiply them by the width and height of their images, and divide by 100",
)

_FEWEST = 3
"""Boxes that a form is recognized by, at least."""

_NEARLY_ALL = 0.95
_MANY_BEYOND = 0.2
"""Ratio of boxes that end beyond their image from which on another form is looked for."""

_FEWEST_PERCENTAGES = 20
_LARGER = 200
"""Side of images, in pixels, in which boxes hardly all end below 100 by chance."""


def find_wrong_units(objects: ObjectTable, split: str) -> list[Finding]:
    """Find out if nearly all boxes of a split make sense only in another form; said once, with the numbers."""
    rows = np.flatnonzero(objects.xyxy.any(1))
    if len(rows) < _FEWEST:
        return []
    xyxy, sizes = objects.xyxy[rows], objects.image_sizes[rows]
    if _most(xyxy.max(1) <= 1.001) and _most(xyxy.min(1) >= -0.001) and sizes.min() > 1:
        return [_finding(FRACTIONS_AS_PIXELS, split, xyxy.max(1) <= 1.001, "end at 1 or before")]
    beyond = ~_fits(xyxy, sizes)
    if beyond.mean() >= _MANY_BEYOND:
        xywh = np.concatenate((xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]), axis=1)
        for kind, boxes in _other_forms(xywh).items():
            if _most(_fits(boxes, sizes)):
                return [
                    _finding(kind, split, beyond, "end beyond their image as they stand; read so, nearly none does")
                ]
    elif len(rows) >= _FEWEST_PERCENTAGES and sizes.min() >= _LARGER and 90 < xyxy.max() <= 100.01:
        return [_finding(PERCENTAGES_AS_PIXELS, split, xyxy.max(1) <= 100.01, "end at 100 or before")]
    return []


def _other_forms(xywh: Float64[np.ndarray, "n 4"]) -> dict[FindingKind, Float64[np.ndarray, "n 4"]]:
    """Corners of the boxes, read in each of the forms that other formats and libraries have."""
    half = xywh[:, 2:] / 2
    swapped = xywh[:, [1, 0, 3, 2]]
    return {
        CORNERS_AS_SIZES: xywh,
        CENTERS_AS_CORNERS: np.concatenate((xywh[:, :2] - half, xywh[:, :2] + half), axis=1),
        SWAPPED_AXES: np.concatenate((swapped[:, :2], swapped[:, :2] + swapped[:, 2:]), axis=1),
    }


def _fits(xyxy: Float64[np.ndarray, "n 4"], sizes: Float64[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
    """Mark boxes that have an area and lie in their image, but for a pixel."""
    has_area = (xyxy[:, 2:] > xyxy[:, :2]).all(1)
    return np.asarray(has_area & (xyxy[:, :2] >= -1).all(1) & (xyxy[:, 2:] <= sizes + 1).all(1))


def _most(mask: Bool[np.ndarray, " n"]) -> bool:
    return bool(mask.mean() >= _NEARLY_ALL)


def _finding(kind: FindingKind, split: str, mask: Bool[np.ndarray, " n"], what: str) -> Finding:
    return Finding(kind, split, f"{int(mask.sum()):,} of {len(mask):,} boxes {what}")
