"""Checks of the area that a file states for each object: the sizes of objects in metrics come from it."""

from __future__ import annotations

import numpy as np

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind

ZERO_AREA = FindingKind(
    "zero_area",
    "warning",
    "objects with a box have an area of 0",
    "metrics by size are wrong: leave `area` out, or correct it",
)
CONSTANT_AREA = FindingKind(
    "constant_area",
    "warning",
    "splits have one area for all objects, whatever their boxes",
    "metrics by size are wrong: leave `area` out, or correct it",
)
AREA_BEYOND_BOX = FindingKind(
    "area_beyond_box",
    "warning",
    "objects have an area larger than their box",
    "metrics by size are wrong: leave `area` out, or correct it",
)
AREA_BELOW_BOX = FindingKind(
    "area_below_box",
    "warning",
    "objects without mask have an area below a hundredth of their box",
    "metrics by size are wrong: leave `area` out, or correct it",
)

_FEWEST = 10
"""Objects of which the area is called constant, at least."""

_TOLERANCE = 1.2
"""Ratio of area and box beyond which they disagree: boxes are rounded, and some formats count the last pixel."""


def find_area_faults(objects: ObjectTable, split: str) -> list[Finding]:
    """Find areas that do not belong to their boxes."""
    area, box_area = objects.area, objects.box_area
    if _is_constant(area, box_area):
        return [Finding(CONSTANT_AREA, split, f"{area[0]:g} for all {len(area):,} objects")]
    with_masks = np.zeros(len(objects), dtype=np.bool_)
    with_masks[[row for row in np.flatnonzero(area < 0.01 * box_area).tolist() if _has_mask(objects, row)]] = True
    width, height = objects.box_sizes.T
    largest = _TOLERANCE * (width + 1) * (height + 1)
    faults = {
        ZERO_AREA: (area == 0) & (box_area > 0),
        AREA_BEYOND_BOX: area > largest,
        AREA_BELOW_BOX: (area > 0) & (area < 0.01 * box_area) & ~with_masks & ~objects.crowd,
    }
    return [
        objects.finding(kind, row, f"area {area[row]:.6g}, box {width[row]:.4g} x {height[row]:.4g} pixels")
        for kind, mask in faults.items()
        for row in np.flatnonzero(mask).tolist()
    ]


def _is_constant(area: np.ndarray, box_area: np.ndarray) -> bool:
    return len(area) >= _FEWEST and bool(np.ptp(area) == 0 and np.ptp(box_area) > 0.1 * box_area.max())


def _has_mask(objects: ObjectTable, row: int) -> bool:
    image = int(objects.image_index[row])
    segmentations = objects.records[image].segmentations
    return bool(segmentations) and segmentations[row - int(objects.starts[image])] is not None
