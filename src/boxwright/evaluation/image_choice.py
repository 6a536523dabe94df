"""Images that are worth labeling first: a detector is unsure of them, and they are unlike what it knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64

from boxwright.data.image_inspection import NEAR_HASHES, hash_distances
from boxwright.ops.boxes import iou
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections

_NUM_UNSURE = 5
"""Detections of an image whose classes count: the most uncertain ones."""

_LEAST = 0.05
"""Detections with lower scores are no objects."""

_CONFIDENT = 0.3
"""Detections with lower scores need not be detected again."""


class Uncertainty(NamedTuple):
    """Doubts of a detector about an image, each in [0, 1].

    ``classes`` is the mean entropy, in bits, of the scores of its five most uncertain detections, 0 for those that are
    not there. ``boxes`` is the mean of 1 - IoU of confident boxes with those of the mirrored image, by their scores.
    """

    classes: float
    boxes: float

    @property
    def total(self) -> float:
        """The mean of both."""
        return (self.classes + self.boxes) / 2


def measure_uncertainty(detections: Detections, mirrored: Detections, width: int) -> Uncertainty:
    """Compare the detections of an image with those of its mirror image.

    Args:
        detections: all of them, in pixels of the image.
        mirrored: of the mirror image, in its pixels.
        width: of the image.
    """
    scores, boxes, labels = (torch.as_tensor(to_numpy(one)) for one in _columns(detections))
    scores = scores.double()
    unsure = scores[scores >= _LEAST].clamp(1e-9, 1 - 1e-9)
    entropy = -(unsure * unsure.log2() + (1 - unsure) * (1 - unsure).log2())
    classes = float(entropy.sort(descending=True).values[:_NUM_UNSURE].sum()) / _NUM_UNSURE
    confident = scores >= _CONFIDENT
    if not confident.any():
        return Uncertainty(classes, 0.0)
    other_scores, others, other_labels = (torch.as_tensor(to_numpy(one)) for one in _columns(mirrored))
    others = torch.stack((width - others[:, 2], others[:, 1], width - others[:, 0], others[:, 3]), 1)
    others, other_labels = others[other_scores >= _LEAST], other_labels[other_scores >= _LEAST]
    overlaps = iou(boxes[confident][:, None].float(), others.float())
    overlaps = overlaps.where(labels[confident][:, None] == other_labels, 0.0)
    best = overlaps.amax(1) if len(others) else torch.zeros(int(confident.sum()))
    weights = scores[confident]
    return Uncertainty(classes, float((weights * (1 - best.double())).sum() / weights.sum()))


def _columns(detections: Detections) -> tuple[object, object, object]:
    return detections.scores, detections.boxes, detections.labels


class ImageChoice(NamedTuple):
    """An image that was chosen: its position in the input, and how unlike all before it and the known ones it is."""

    position: int
    novelty: float


def choose_uncertain(
    uncertainty: Float64[np.ndarray, " n"],
    features: Float64[np.ndarray, "n d"],
    hashes: Sequence[bytes | None],
    count: int,
    *,
    known_features: Float64[np.ndarray, "m d"] | None = None,
    known_hashes: Sequence[bytes | None] = (),
) -> tuple[list[ImageChoice], int]:
    """Choose images one by one, each the one with the greatest product of uncertainty and novelty.

    Novelty is half the cosine distance of features, less their mean over all images, from the nearest image that is
    chosen or known; 1 without any. Of images that are nearly the same, one is chosen.

    Args:
        uncertainty: of each image.
        features: of each image.
        hashes: difference hash of each image; None where it has none.
        count: of images, at most.
        known_features: of images that are labeled already.
        known_hashes: the same.

    Returns:
        the images, best first, and the number of those that were left out as nearly the same as another.
    """
    known = np.zeros((0, features.shape[1])) if known_features is None else known_features
    every = _normalize(np.concatenate((features, known)))
    points, fixed = every[: len(features)], every[len(features) :]
    novelty = np.ones(len(points)) if not len(fixed) else (1 - (points @ fixed.T).max(1)) / 2
    novelty = novelty.clip(0, 1)
    free = np.ones(len(points), dtype=np.bool_)
    for known_hash in known_hashes:
        free &= ~_is_near(known_hash, hashes)
    chosen: list[ImageChoice] = []
    num_repeated = int((~free).sum())
    while free.any() and len(chosen) < count:
        # Of equal products, as of images without any doubt, the most novel one.
        order = np.lexsort((novelty, uncertainty * novelty))
        best = int(order[free[order]][-1])
        chosen.append(ImageChoice(best, float(novelty[best])))
        free[best] = False
        repeated = free & _is_near(hashes[best], hashes)
        num_repeated += int(repeated.sum())
        free &= ~repeated
        novelty = np.minimum(novelty, (1 - points @ points[best]) / 2).clip(0, 1)
    return chosen, num_repeated


def _normalize(features: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n d"]:
    centered = features - features.mean(0, keepdims=True)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    return np.asarray(centered / np.maximum(lengths, 1e-12))


def _is_near(one: bytes | None, hashes: Sequence[bytes | None]) -> Bool[np.ndarray, " n"]:
    is_near = np.zeros(len(hashes), dtype=np.bool_)
    present = [index for index, other in enumerate(hashes) if other is not None]
    if one is None or not present:
        return is_near
    others = np.array([np.frombuffer(hashes[index] or b"", np.uint8) for index in present])
    is_near[present] = hash_distances(one, others) <= NEAR_HASHES
    return is_near
