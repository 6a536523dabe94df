"""Tracks and detections, assigned to each other."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from scipy.optimize import linear_sum_assignment


def overlap_of_pairs(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Compute the IoU of all pairs of corner boxes; 0 where a box has no area."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = sides.clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1] - common
    overlap: Float64[np.ndarray, "n m"] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return overlap


def assign(
    agreement: Float64[np.ndarray, "n m"], least: float
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Choose the pairs of rows and columns, each in one at most, whose agreement beyond ``least`` is most in all.

    It is what ByteTrack's ``lap.lapjv`` with ``cost_limit`` minimizes: a pair costs its distance, and a row or a column
    that stays alone costs half the limit.
    """
    gains = np.maximum(agreement - least, 0.0)
    rows, columns = linear_sum_assignment(gains, maximize=True)
    chosen = gains[rows, columns] > 0
    return rows[chosen], columns[chosen]
