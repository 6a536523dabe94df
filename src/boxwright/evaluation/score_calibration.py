"""Calibration of scores: how often detections of a score are right, and temperatures that bring the two together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from boxwright.evaluation.matched_detections import MatchedDetections

NUM_BINS = 10

_LEAST_HITS = 10
"""Classes with fewer right or fewer wrong detections have the temperature of all classes together."""

_LEAST, _MOST = 1e-6, 1 - 1e-6
"""Scores are as far from 0 and 1, whose logits have no end."""

_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class CalibrationBin:
    """Detections with scores from ``lower`` to below ``upper``; those of 1 are in the last.

    Args:
        lower: least score.
        upper: above the highest.
        num_detections: with such scores.
        mean_score: of them; 0 without any.
        precision: fraction of them that is right at IoU 0.5; 0 without any.
    """

    lower: float
    upper: float
    num_detections: int
    mean_score: float
    precision: float


@dataclass(frozen=True)
class Calibration:
    """Calibration of scores at IoU 0.5.

    Args:
        error: expected calibration error: the difference of score and precision, mean over bins by their detections.
        bins: of equal width.
        per_class: expected calibration error of each class, by its label; 0 without detections.
        num_detections: in all; those in crowds are not among them.
    """

    error: float
    bins: tuple[CalibrationBin, ...]
    per_class: tuple[float, ...]
    num_detections: int

    def to_json(self) -> dict[str, Any]:
        """Return all numbers, ready for ``json.dump``."""
        return asdict(self)


def calibrate(matched: MatchedDetections, num_classes: int, temperatures: Sequence[float] | None = None) -> Calibration:
    """Compare scores with the fraction of detections that are right.

    Args:
        matched: at IoU 0.5.
        num_classes: of the data.
        temperatures: of each class, that its scores are changed by before.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 2; checked against hotcoco's.
    """
    scores, hits, labels = _columns(matched)
    if temperatures is not None:
        scores = apply_temperatures(scores, labels, temperatures)
    bins = _bins(scores, hits)
    own = [_bins(scores[labels == label], hits[labels == label]) for label in range(num_classes)]
    return Calibration(_error(bins), bins, tuple(map(_error, own)), len(scores))


def fit_temperatures(matched: MatchedDetections, num_classes: int) -> tuple[float, ...]:
    """Fit the temperature of each class with which scores are likeliest to give hits and false detections.

    Args:
        matched: at IoU 0.5.
        num_classes: of the data.

    Returns:
        By label; 1 leaves scores as they are, more brings them nearer to 0.5. A class with too few detections that are
        right, or that are wrong, gets that of all classes together.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2, with one logit.
    """
    scores, hits, labels = _columns(matched)
    common = _fit(scores, hits) if _is_enough(hits) else 1.0
    own = [(scores[labels == label], hits[labels == label]) for label in range(num_classes)]
    return tuple(_fit(*columns) if _is_enough(columns[1]) else common for columns in own)


def apply_temperatures(
    scores: Float64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], temperatures: Sequence[float]
) -> Float64[np.ndarray, " n"]:
    """Return sigmoid(logit(score) / temperature), with the temperature of each detection's class."""
    logits = logit(np.clip(scores, _LEAST, _MOST))
    changed: Float64[np.ndarray, " n"] = expit(logits / np.asarray(temperatures, dtype=np.float64)[labels])
    return changed


def _columns(
    matched: MatchedDetections,
) -> tuple[Float64[np.ndarray, " n"], Bool[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    counts = ~matched.ignored[0, 0]
    return matched.scores[counts], matched.hits[0, 0, counts], matched.labels[counts]


def _bins(scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"]) -> tuple[CalibrationBin, ...]:
    index = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts, sums, right = (
        np.bincount(index, weights, minlength=NUM_BINS) for weights in (None, scores, hits.astype(np.float64))
    )
    return tuple(
        CalibrationBin(
            lower=one / NUM_BINS,
            upper=(one + 1) / NUM_BINS,
            num_detections=int(counts[one]),
            mean_score=float(sums[one] / max(counts[one], 1)),
            precision=float(right[one] / max(counts[one], 1)),
        )
        for one in range(NUM_BINS)
    )


def _error(bins: Sequence[CalibrationBin]) -> float:
    total = sum(one.num_detections for one in bins)
    return sum(one.num_detections * abs(one.mean_score - one.precision) for one in bins) / max(total, 1)


def _is_enough(hits: Bool[np.ndarray, " n"]) -> bool:
    return min(int(hits.sum()), int((~hits).sum())) >= _LEAST_HITS


def _fit(scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"]) -> float:
    logits = logit(np.clip(scores, _LEAST, _MOST))

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - hits * scaled))

    least, most = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(least, most), method="bounded").x))
