"""Thresholds and scaled scores tested on images that they were not tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxwright.evaluation.matched_detections import MatchedDetections
from boxwright.evaluation.operating_points import (
    DEFAULT_THRESHOLD,
    OperatingPoint,
    count_at,
    find_operating_points,
    mean_f1,
    thresholds_of,
)
from boxwright.evaluation.score_calibration import calibrate, fit_scaling
from boxwright.evaluation.threshold_target import Target


@dataclass(frozen=True)
class HeldOutCounts:
    """Counts on all images, each with what was tuned on the half that it is not in.

    Args:
        tuned: of each class; the threshold is the mean of those of both halves.
        untuned: of each class, with 0.5.
        error_before: expected calibration error of the scores as they are.
        error_after: the same of scores as scaled for the other half.
    """

    tuned: tuple[OperatingPoint, ...]
    untuned: tuple[OperatingPoint, ...]
    error_before: float
    error_after: float

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, ready for ``json.dump``."""
        return {
            "tuned": [one.to_json() for one in self.tuned],
            "untuned": [one.to_json() for one in self.untuned],
            "mean_f1_tuned": mean_f1(self.tuned),
            "mean_f1_untuned": mean_f1(self.untuned),
            "calibration_error_before": self.error_before,
            "calibration_error_after": self.error_after,
        }


def count_held_out(matched: MatchedDetections, names: Sequence[str], target: Target, *, seed: int = 0) -> HeldOutCounts:
    """Tune on one half of the images and count on the other one, and the other way round.

    Args:
        matched: at IoU 0.5.
        names: of the classes.
        target: of the thresholds.
        seed: draws the halves.

    Raises:
        ValueError: there are no two images.
    """
    halves = draw_halves(len(matched.image_ids), seed)
    scores = matched.scores.copy()
    parts = []
    for own, other in (halves, halves[::-1]):
        fitted, tested = matched.of_images(own), np.isin(matched.images, other)
        thresholds = thresholds_of(find_operating_points(fitted, names, target))
        parts.append(count_at(matched.of_images(other), names, thresholds))
        scaling = fit_scaling(fitted, len(names))
        scores[tested] = scaling.apply(scores[tested], matched.labels[tested])
    return HeldOutCounts(
        tuned=tuple(_add(first, second) for first, second in zip(*parts, strict=True)),
        untuned=count_at(matched, names, DEFAULT_THRESHOLD),
        error_before=calibrate(matched, len(names)).error,
        error_after=calibrate(matched.with_scores(scores), len(names)).error,
    )


def draw_halves(num_images: int, seed: int) -> tuple[Int64[np.ndarray, " a"], Int64[np.ndarray, " b"]]:
    """Draw the numbers of the images of two halves.

    Raises:
        ValueError: there are no two images.
    """
    if num_images < 2:
        raise ValueError(f"{num_images} image is no data to tune on and to test on: at least 2 are needed")
    order = np.random.default_rng(seed).permutation(num_images)
    return np.sort(order[: num_images // 2]), np.sort(order[num_images // 2 :])


def _add(first: OperatingPoint, second: OperatingPoint) -> OperatingPoint:
    return replace(
        first,
        threshold=(first.threshold + second.threshold) / 2,
        true_positives=first.true_positives + second.true_positives,
        false_positives=first.false_positives + second.false_positives,
        missed=first.missed + second.missed,
    )
