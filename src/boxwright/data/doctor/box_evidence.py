"""Evidence in the pixels that boxes lie where their objects are: contrast inside them, against boxes beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

LONGEST_SIDE = 400
"""Pixels that images are reduced to."""

LEAST_SIDE = 8.0
"""Sides of boxes in the reduced image below which nothing can be told."""

MOST_OF_IMAGE = 0.7
"""Fraction of the image's sides from which on a box has nothing beside it."""

SHIFTS = np.array([(x, y) for x in (-0.3, 0.0, 0.3) for y in (-0.3, 0.0, 0.3) if x or y])
"""Of the boxes beside a box, in its sides."""

FEWEST_SHIFTS = 3

LEAST_SPREAD = 0.05
"""Of the ranks of images: a few images that are alike prove little."""


class PlacementEvidence(NamedTuple):
    """The ratio of boxes beside a box that have less contrast inside than it has: 0.5 by chance, 1 if all do.

    ``mean`` is over so many ``images``, and so many ``standard_errors`` above chance.
    """

    images: int
    mean: float
    standard_errors: float

    @classmethod
    def of(cls, ranks: Iterable[float]) -> PlacementEvidence:
        """Collect the ranks of images, of which some may be NaN."""
        values = np.array([one for one in ranks if not math.isnan(one)])
        if len(values) < 2:
            return cls(len(values), 0.5, 0.0)
        error = max(float(values.std(ddof=1)), LEAST_SPREAD) / math.sqrt(len(values))
        return cls(len(values), float(values.mean()), (float(values.mean()) - 0.5) / error)


class ContrastMap:
    """Sums of the contrast between neighboring pixels of an image, for any box in it.

    Args:
        pixels: of the image.
    """

    def __init__(self, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
        image = Image.fromarray(pixels)
        scale = min(1.0, LONGEST_SIDE / max(image.size))
        self.size = np.array([max(2, round(image.width * scale)), max(2, round(image.height * scale))])
        small = np.asarray(image.resize(tuple(self.size.tolist()), Image.Resampling.BOX), dtype=np.float64)
        contrast = np.zeros(small.shape[:2])
        contrast[:, 1:] += np.abs(np.diff(small, axis=1)).mean(2)
        contrast[1:] += np.abs(np.diff(small, axis=0)).mean(2)
        self._sums = np.pad(contrast.cumsum(0).cumsum(1), ((1, 0), (1, 0)))

    def mean_rank(self, boxes: Float64[np.ndarray, "n 4"]) -> float:
        """Return the mean fraction of boxes beside each box that have less contrast; NaN where no box tells.

        Args:
            boxes: corners in fractions of the image's sides.
        """
        ranks = [rank for box in boxes if not math.isnan(rank := self._rank(box))]
        return float(np.mean(ranks)) if ranks else math.nan

    def _rank(self, box: Float64[np.ndarray, " 4"]) -> float:
        first, last = box[:2] * self.size, box[2:] * self.size
        sides = last - first
        if (sides < LEAST_SIDE).any() or (sides > MOST_OF_IMAGE * self.size).any():
            return math.nan
        starts = np.concatenate((first[None], first + SHIFTS * sides)).round().astype(np.int64)
        ends = starts + sides.round().astype(np.int64)
        inside = (starts >= 0).all(1) & (ends <= self.size).all(1)
        if not inside[0] or inside.sum() <= FEWEST_SHIFTS:
            return math.nan
        (left, top), (right, bottom) = starts[inside].T, ends[inside].T
        sums = self._sums
        own, *others = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return float(np.mean([0.5 if own == other else float(own > other) for other in others]))
