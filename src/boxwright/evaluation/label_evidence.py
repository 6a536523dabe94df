"""Disagreement between the annotations of an image and detections of a model that has not seen it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64

from boxwright.data.records import Record
from boxwright.ops.boxes import iou
from boxwright_runtime.detections import Detections

SAME_OBJECT = 0.6
"""IoU from which detections of any class are of one object."""

LEAST_OVERLAP = 0.1
"""IoU from which a detection and an annotation may be of one object."""

LEAST_SCORE = 0.05
"""Score from which detections are looked at."""


class PredictedObjects(NamedTuple):
    """Objects of an image with their class scores: detections at one place, whatever their classes, are one object.

    ``boxes`` are those of the best detections, best first; ``scores`` are 0 where there is no detection of a class.
    """

    boxes: Float64[np.ndarray, "m 4"]
    scores: Float64[np.ndarray, "m k"]


class Evidence(NamedTuple):
    """Scores of one image, in [0, 1]: the higher, the more do annotations and detections disagree.

    ``wrong_class``, ``badly_placed`` and ``spurious`` have one score for each annotation, ``overlooked`` one for each
    predicted object without annotation.
    """

    wrong_class: Float64[np.ndarray, " n"]
    badly_placed: Float64[np.ndarray, " n"]
    spurious: Float64[np.ndarray, " n"]
    overlooked: Float64[np.ndarray, " o"]


class Comparison(NamedTuple):
    """Annotations of an image beside its predicted objects, matched one to one.

    ``annotations`` are indices into the record, crowd regions left out; ``matches`` has the predicted object of each,
    -1 for none; ``unmatched`` are predicted objects without annotation. ``planted`` is the evidence that there would be
    if every annotation had an error of this kind: the wrong class, a shifted box, a box at random, none at all.
    """

    annotations: Int64[np.ndarray, " n"]
    predicted: PredictedObjects
    overlap: Float64[np.ndarray, "n m"]
    matches: Int64[np.ndarray, " n"]
    unmatched: Int64[np.ndarray, " o"]
    evidence: Evidence
    planted: Evidence


def compare_annotations(
    record: Record, detections: Detections, num_classes: int, random: np.random.Generator
) -> Comparison:
    """Compare the annotations of an image with its detections.

    With p the scores of the matched object for the classes, c the annotated class and u the IoU with it:
    wrong class max(p, other than c) (1 - p_c), badly placed max(p) (1 - u), spurious 1 - max over all predicted
    objects of max(p) u, overlooked max(p) (1 - v) with v the IoU with the nearest annotation.

    Args:
        record: an image with its annotations.
        detections: of this image, by a model that has not seen it.
        num_classes: number of classes.
        random: draws the planted errors.

    Source: the kinds of errors of Tkachenko, Thyagarajan and Mueller, ObjectLab (2023), and of Schubert et al.,
    Identifying Label Errors in Object Detection Datasets by Loss Inspection (2023). The scores are ours.
    """
    predicted = merge_detections(detections, num_classes)
    kept = np.flatnonzero(~record.crowd)
    boxes, labels = record.boxes()[kept].astype(np.float64), record.labels[kept]
    overlap = pairwise_iou(boxes, predicted.boxes)
    matches = match_objects(overlap, predicted.scores.max(1, initial=0.0))
    in_crowd = _covered(predicted.boxes, record.boxes()[record.crowd].astype(np.float64)) >= 0.5
    is_unmatched = ~np.isin(np.arange(len(predicted.boxes)), matches) & ~in_crowd
    unmatched = np.flatnonzero(is_unmatched)
    confidence = predicted.scores.max(1, initial=0.0)
    own_iou = np.where(matches >= 0, np.take_along_axis(_padded(overlap), matches[:, None], 1)[:, 0], 0.0)
    evidence = Evidence(
        wrong_class=_wrong_class(predicted.scores, matches, labels),
        badly_placed=_badly_placed(confidence, matches, own_iou),
        spurious=_spurious(confidence, overlap),
        overlooked=confidence[unmatched] * (1 - overlap[:, unmatched].max(0, initial=0.0)),
    )
    planted = _plant(record, boxes, labels, predicted, overlap, matches, random)
    return Comparison(kept, predicted, overlap, matches, unmatched, evidence, planted)


def merge_detections(detections: Detections, num_classes: int) -> PredictedObjects:
    """Merge detections of one place: what overlaps a better detection by ``SAME_OBJECT``, whatever its class."""
    scores = detections.scores.double().cpu().numpy()
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LEAST_SCORE]
    scores, labels = scores[order], detections.labels.cpu().numpy()[order]
    boxes = detections.boxes.double().cpu().numpy()[order]
    same = pairwise_iou(boxes, boxes) >= SAME_OBJECT
    waiting = np.ones(len(order), dtype=np.bool_)
    best, rows = [], []
    for i in range(len(order)):
        if not waiting[i]:
            continue
        members = waiting & same[i]
        members[i] = True
        waiting &= ~members
        row = np.zeros(num_classes)
        np.maximum.at(row, labels[members], scores[members])
        best.append(i)
        rows.append(row)
    return PredictedObjects(boxes[best], np.array(rows).reshape(-1, num_classes))


def match_objects(
    overlap: Float64[np.ndarray, "n m"], confidence: Float64[np.ndarray, " m"]
) -> Int64[np.ndarray, " n"]:
    """Match annotations and predicted objects one to one: best product of IoU and root of confidence first.

    Returns:
        the predicted object of each annotation, -1 for none.
    """
    matches = np.full(overlap.shape[0], -1, dtype=np.int64)
    taken = np.zeros(overlap.shape[1], dtype=np.bool_)
    rows, columns = np.nonzero(overlap >= LEAST_OVERLAP)
    weights = overlap[rows, columns] * np.sqrt(confidence[columns])
    for pair in np.argsort(-weights, kind="stable").tolist():
        row, column = rows[pair], columns[pair]
        if matches[row] < 0 and not taken[column]:
            matches[row], taken[column] = column, True
    return matches


def pairwise_iou(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Compute the IoU of all pairs of corner boxes."""
    overlap: Float64[np.ndarray, "n m"] = iou(torch.from_numpy(a)[:, None], torch.from_numpy(b)[None]).numpy()
    return overlap


def shift_boxes(
    boxes: Float64[np.ndarray, "n 4"], overlap: Float64[np.ndarray, " n"], random: np.random.Generator
) -> Float64[np.ndarray, "n 4"]:
    """Move boxes in random directions until their IoU with the old ones is ``overlap``.

    A box of width w and height h that moves by (t w cos, t h sin) shares (1 - t |cos|) (1 - t |sin|) of its area, and
    that is 2 IoU / (1 + IoU).
    """
    angle = random.uniform(0, 2 * np.pi, len(boxes))
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    left_out = 1 - 2 * overlap / (1 + overlap)
    distance = 2 * left_out / (cos + sin + np.sqrt((cos + sin) ** 2 - 4 * cos * sin * left_out))
    sides = boxes[:, 2:] - boxes[:, :2]
    step = distance[:, None] * sides * np.stack([np.cos(angle), np.sin(angle)], 1)
    shifted: Float64[np.ndarray, "n 4"] = boxes + np.concatenate([step, step], 1)
    return shifted


def _plant(
    record: Record,
    boxes: Float64[np.ndarray, "n 4"],
    labels: Int64[np.ndarray, " n"],
    predicted: PredictedObjects,
    overlap: Float64[np.ndarray, "n m"],
    matches: Int64[np.ndarray, " n"],
    random: np.random.Generator,
) -> Evidence:
    """Return the evidence if every annotation, each by itself, had an error of a kind."""
    count, num_classes = len(boxes), predicted.scores.shape[1]
    confidence = predicted.scores.max(1, initial=0.0)
    others = (labels + random.integers(1, max(num_classes, 2), count)) % num_classes
    shifted = shift_boxes(boxes, random.uniform(0.3, 0.7, count), random)
    sides = boxes[:, 2:] - boxes[:, :2]
    corner = random.random((count, 2)) * (np.array([record.width, record.height]) - sides)
    elsewhere = np.concatenate([corner, corner + sides], 1)
    shifted_overlap = np.take_along_axis(_padded(pairwise_iou(shifted, predicted.boxes)), matches[:, None], 1)[:, 0]
    without = _without_own(overlap)
    match_overlap = np.take_along_axis(_padded(overlap), matches[:, None], 1)[:, 0]
    beside = np.take_along_axis(_padded(without), matches[:, None], 1)[:, 0]
    is_seen = (matches >= 0) & (match_overlap >= 0.5)
    return Evidence(
        wrong_class=_wrong_class(predicted.scores, matches, others),
        badly_placed=_badly_placed(confidence, matches, shifted_overlap),
        spurious=_spurious(confidence, pairwise_iou(elsewhere, predicted.boxes)),
        overlooked=np.where(is_seen, np.append(confidence, 0.0)[matches] * (1 - beside), 0.0),
    )


def _wrong_class(
    scores: Float64[np.ndarray, "m k"], matches: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    own_scores = np.concatenate([scores, np.zeros((1, scores.shape[1]))])[matches]
    rows = np.arange(len(labels))
    own = own_scores[rows, labels]
    own_scores[rows, labels] = 0.0
    disagreement: Float64[np.ndarray, " n"] = own_scores.max(1, initial=0.0) * (1 - own)
    return disagreement


def _badly_placed(
    confidence: Float64[np.ndarray, " m"], matches: Int64[np.ndarray, " n"], overlap: Float64[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    disagreement: Float64[np.ndarray, " n"] = np.append(confidence, 0.0)[matches] * (1 - overlap)
    return disagreement


def _spurious(confidence: Float64[np.ndarray, " m"], overlap: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, " n"]:
    disagreement: Float64[np.ndarray, " n"] = 1 - (confidence * overlap).max(1, initial=0.0)
    return disagreement


def _without_own(overlap: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m"]:
    """For each annotation, the largest IoU that the other annotations have with each predicted object."""
    if len(overlap) < 2:
        return np.zeros_like(overlap)
    largest = np.sort(overlap, 0)
    others: Float64[np.ndarray, "n m"] = np.where(overlap == largest[-1], largest[-2], largest[-1])
    return others


def _padded(overlap: Float64[np.ndarray, "n m"]) -> Float64[np.ndarray, "n m1"]:
    """A column of zeros at the end, where the index -1 of no match leads to."""
    padded: Float64[np.ndarray, "n m1"] = np.concatenate([overlap, np.zeros((len(overlap), 1))], 1)
    return padded


def _covered(boxes: Float64[np.ndarray, "m 4"], regions: Float64[np.ndarray, "r 4"]) -> Float64[np.ndarray, " m"]:
    """The largest fraction of each box that lies in one of the regions."""
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    area = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1e-9)
    fraction: Float64[np.ndarray, " m"] = ((high - low).clip(min=0).prod(2) / area[:, None]).max(1, initial=0.0)
    return fraction
