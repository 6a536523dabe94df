"""Calibration of scores: how often detections of a score are right, and functions that bring the two together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.optimize import minimize
from scipy.special import expit, logit

from boxwright.evaluation.matched_detections import MatchedDetections

NUM_BINS = 10

_LEAST_HITS = 10
"""Classes with fewer right or fewer wrong detections have the function of all classes together."""

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


def calibrate(matched: MatchedDetections, num_classes: int) -> Calibration:
    """Compare scores with the fraction of detections that are right.

    Args:
        matched: at IoU 0.5.
        num_classes: of the data.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 2; checked against hotcoco's.
    """
    return calibrate_scores(*_columns(matched), num_classes)


def calibrate_scores(
    scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], num_classes: int
) -> Calibration:
    """Do the same with scores, which of them are right, and labels; see ``calibrate``."""
    bins = _bins(scores, hits)
    own = [_bins(scores[labels == label], hits[labels == label]) for label in range(num_classes)]
    return Calibration(_error(bins), bins, tuple(map(_error, own)), len(scores))


class ScoreScaling(NamedTuple):
    """Functions of scores to fractions of detections that are right: sigmoid(logit(score) / temperature + shift).

    Args:
        temperatures: of each class, by its label; 1 leaves logits as they are, more brings scores nearer to 0.5.
        shifts: of each class, by its label; 0 leaves logits as they are.
    """

    temperatures: tuple[float, ...]
    shifts: tuple[float, ...]

    def apply(self, scores: Float64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Scale the scores of detections of some classes."""
        temperatures, shifts = (np.asarray(values, dtype=np.float64)[labels] for values in self)
        scaled: Float64[np.ndarray, " n"] = expit(_logits(scores) / temperatures + shifts)
        return scaled


def fit_scaling(matched: MatchedDetections, num_classes: int) -> ScoreScaling:
    """Fit the temperature and the shift of each class with which scores are likeliest to give its hits and the others.

    A class with too few detections that are right, or that are wrong, gets those of all classes together.

    Args:
        matched: at IoU 0.5.
        num_classes: of the data.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), section 4.2, and Platt, Probabilities for
    SV Machines (2000), whose shift is needed: of detections with a score of 0.5, which a temperature leaves there, half
    is seldom right. Platt's targets too, which keep classes with few detections from extremes.
    """
    scores, hits, labels = _columns(matched)
    common = _fit(scores, hits) if _is_enough(hits) else (1.0, 0.0)
    own = [(scores[labels == label], hits[labels == label]) for label in range(num_classes)]
    fitted = [_fit(*columns) if _is_enough(columns[1]) else common for columns in own]
    return ScoreScaling(tuple(one for one, _ in fitted), tuple(one for _, one in fitted))


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


def _fit(scores: Float64[np.ndarray, " n"], hits: Bool[np.ndarray, " n"]) -> tuple[float, float]:
    """Fit temperature and shift by the likelihood, which has one maximum."""
    logits, right = _logits(scores), int(hits.sum())
    wrong = len(hits) - right
    targets = np.where(hits, (right + 1) / (right + 2), 1 / (wrong + 2))

    def loss(parameters: Float64[np.ndarray, 2]) -> tuple[float, Float64[np.ndarray, 2]]:
        scaled = parameters[0] * logits + parameters[1]
        error = expit(scaled) - targets
        gradient = np.array([np.mean(error * logits), np.mean(error)])
        return float(np.mean(np.logaddexp(0, scaled) - targets * scaled)), gradient

    least, most = _TEMPERATURES
    bounds = [(1 / most, 1 / least), (-20.0, 20.0)]
    slope, shift = minimize(loss, [1.0, 0.0], jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(1 / slope), float(shift)


def _logits(scores: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    logits: Float64[np.ndarray, " n"] = logit(np.clip(scores, _LEAST, _MOST))
    return logits
