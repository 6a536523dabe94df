"""One ranking of probable label errors: overlooked objects, wrong classes, badly placed and spurious boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float64

from boxwright.data.records import DetectionData, Record
from boxwright.evaluation.label_evidence import Comparison, compare_annotations
from boxwright_runtime.detections import Detections

ErrorKind = Literal["wrong_class", "badly_placed", "spurious", "overlooked"]

ASSUMED_RATES: Mapping[ErrorKind, float] = {
    "wrong_class": 0.05,
    "badly_placed": 0.05,
    "spurious": 0.01,
    "overlooked": 0.05,
}
"""Fraction of the annotations that is taken to have an error of a kind before anything is seen; boxes around nothing
are rarely drawn."""

_OF_ANNOTATIONS: tuple[ErrorKind, ...] = ("wrong_class", "badly_placed", "spurious")

_KINDS: tuple[ErrorKind, ...] = get_args(ErrorKind)
_OVERLOOKED = _KINDS.index("overlooked")


class Suspicion(NamedTuple):
    """A probable label error.

    Args:
        kind: the likeliest kind of error.
        odds: how much more often evidence like this comes from an error than it is seen, at ``ASSUMED_RATES`` errors.
        image_id: of the image.
        annotation_id: of the annotation; None for an overlooked object.
        label: of the annotation; of the detection for an overlooked object.
        box: of the annotation, or of the overlooked object: corners in pixels.
        predicted_label: class that the model sees here; None where it sees nothing.
        predicted_box: corners of what it sees, or None.
        confidence: score of that class; 0 where it sees nothing.
        overlap: IoU of the annotation with what it sees; of an overlooked object with the nearest annotation.
    """

    kind: ErrorKind
    odds: float
    image_id: int
    annotation_id: int | None
    label: int
    box: tuple[float, float, float, float]
    predicted_label: int | None
    predicted_box: tuple[float, float, float, float] | None
    confidence: float
    overlap: float

    @property
    def probability(self) -> float:
        """The probability of an error if ``ASSUMED_RATES`` of the annotations have one of this kind, see ``rank``."""
        return min(self.odds, 1.0)


def rank_label_errors(data: DetectionData, detections: Mapping[int, Detections], *, seed: int = 0) -> list[Suspicion]:
    """Rank every annotation and every predicted object without annotation, the most probable label errors first.

    An annotation appears once, with its likeliest error. Crowd regions are left out, and so are detections inside them.
    "The first 15 % of the ranking" are as many of its entries as 15 % of the annotations are, crowd regions not
    counted, whatever number of overlooked objects follows.

    The scores of ``compare`` mean nothing beside each other: how far a good box is from its detection depends on
    the data and on the model. So each kind of error is planted: every annotation by itself is given another class, a
    shifted box, a random one, or none, and compared with the same detections, which know nothing of annotations
    in their own image. With f1 the density of a score among errors so made and f that among the data's own, errors
    included, Bayes' rule is P(error | score) = rate f1 / f. f1 / f is made to rise with the score by isotonic
    regression.

    Args:
        data: images with annotations.
        detections: by image id, of models that have not seen the image.
        seed: of the planted errors.

    Raises:
        ValueError: an image has no detections.
    """
    missing = [record.path.name for record in data.records if record.image_id not in detections]
    if missing:
        raise ValueError(f"{data.source}: {len(missing)} images without predictions, the first is {missing[0]}")
    random = np.random.default_rng(seed)
    num_classes = len(data.categories)
    compared = [
        compare_annotations(record, detections[record.image_id], num_classes, random) for record in data.records
    ]
    odds = [_odds(compared, kind) for kind in range(len(_KINDS))]
    suspicions: list[Suspicion] = []
    done = [0] * len(odds)
    for record, comparison in zip(data.records, compared, strict=True):
        counts = [len(scores) for scores in comparison.evidence]
        own = [one[start : start + count] for one, start, count in zip(odds, done, counts, strict=True)]
        done = [start + count for start, count in zip(done, counts, strict=True)]
        suspicions += _suspicions(record, comparison, own)
    return sorted(suspicions, key=lambda one: -one.odds)


def rise(
    values: Float64[np.ndarray, " n"], is_planted: Bool[np.ndarray, " n"], weights: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """Fit the fraction of planted scores as a function that never falls with the score: isotonic regression.

    Source: pool adjacent violators, Barlow et al., Statistical Inference under Order Restrictions (1972). Checked
    against scipy.optimize.isotonic_regression.
    """
    unique, inverse = np.unique(values, return_inverse=True)
    total = np.bincount(inverse, weights, len(unique))
    planted = np.bincount(inverse, weights * is_planted, len(unique))
    blocks: list[tuple[float, float, int]] = []
    for one, both in zip(planted.tolist(), total.tolist(), strict=True):
        block = (one, both, 1)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            last = blocks.pop()
            block = (last[0] + block[0], last[1] + block[1], last[2] + block[2])
        blocks.append(block)
    fitted = np.repeat([one / both for one, both, _ in blocks], [length for _, _, length in blocks])
    rising: Float64[np.ndarray, " n"] = fitted[inverse]
    return rising


def _odds(compared: Sequence[Comparison], kind: int) -> Float64[np.ndarray, " n"]:
    """Return rate f1 / f of every score of a kind, in the order of the images; 0 for a score of 0.

    The score itself decides ties.
    """
    own = np.concatenate([one.evidence[kind] for one in compared])
    planted = np.concatenate([one.planted[kind] for one in compared])
    values = np.concatenate([own, planted])
    is_planted = np.arange(len(values)) >= len(own)
    fitted = rise(values, is_planted, np.where(is_planted, ASSUMED_RATES[_KINDS[kind]], 1.0))[: len(own)]
    ratios = fitted / np.maximum(1 - fitted, 1e-9) * (1 + 1e-6 * own)
    return np.where(own > 0, ratios, 0.0)


def _suspicions(record: Record, comparison: Comparison, odds: Sequence[Float64[np.ndarray, " _n"]]) -> list[Suspicion]:
    predicted, boxes = comparison.predicted, record.boxes().astype(np.float64)
    likeliest = np.stack(odds[:_OVERLOOKED]).argmax(0)
    suspicions = []
    for row, index in enumerate(comparison.annotations.tolist()):
        match, kind = int(comparison.matches[row]), int(likeliest[row])
        suspicions.append(
            Suspicion(
                kind=_OF_ANNOTATIONS[kind],
                odds=float(odds[kind][row]),
                image_id=record.image_id,
                annotation_id=record.annotation_ids[index],
                label=int(record.labels[index]),
                box=_corners(boxes[index]),
                predicted_label=int(predicted.scores[match].argmax()) if match >= 0 else None,
                predicted_box=_corners(predicted.boxes[match]) if match >= 0 else None,
                confidence=float(predicted.scores[match].max()) if match >= 0 else 0.0,
                overlap=float(comparison.overlap[row, match]) if match >= 0 else 0.0,
            )
        )
    for row, index in enumerate(comparison.unmatched.tolist()):
        label, box = int(predicted.scores[index].argmax()), _corners(predicted.boxes[index])
        suspicions.append(
            Suspicion(
                kind="overlooked",
                odds=float(odds[_OVERLOOKED][row]),
                image_id=record.image_id,
                annotation_id=None,
                label=label,
                box=box,
                predicted_label=label,
                predicted_box=box,
                confidence=float(predicted.scores[index].max()),
                overlap=float(comparison.overlap[:, index].max(initial=0.0)),
            )
        )
    return suspicions


def _corners(box: Float64[np.ndarray, " 4"]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box.tolist()
    return x1, y1, x2, y2
