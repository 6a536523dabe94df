"""Metrics of samples of the images, drawn with replacement: how far the numbers of a data set may be by chance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.evaluation.coco_metrics import NUMBERS
from boxwright.evaluation.matched_detections import AREAS, IOU_THRESHOLDS, MatchedDetections
from boxwright.evaluation.precision_recall import RECALLS

_CELLS = 4_000_000
"""Numbers in memory at once: detections of a class times samples."""

_ALL = AREAS.index("all")
_CAPS = (1, 10)


class SampledMetrics(NamedTuple):
    """Metrics of each sample; NaN where it has no object (of that size).

    Args:
        numbers: the 12 numbers, in the order of ``NUMBERS``.
        per_class: AP of each class.
    """

    numbers: Float64[np.ndarray, "samples 12"]
    per_class: Float64[np.ndarray, "samples classes"]


def draw_samples(num_images: int, num_samples: int, seed: int) -> Int64[np.ndarray, "samples images"]:
    """Draw as many images as there are, with replacement: how often each is in each sample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_samples)


def measure_samples(
    matched: MatchedDetections,
    samples: Int64[np.ndarray, "samples images"],
    num_classes: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> SampledMetrics:
    """Compute COCO's numbers of samples of the images, in which an image may be several times, or not at all.

    Args:
        matched: at ``IOU_THRESHOLDS`` and of all ``AREAS``.
        samples: how often each image is in each sample.
        num_classes: of the data.
        progress: called after each class.

    Source: pycocotools (COCOeval.accumulate), on a data set with so many copies of each image, to 1e-12.
    """
    shape = (len(samples), num_classes, len(AREAS), len(IOU_THRESHOLDS))
    precision, recall = np.full(shape, np.nan), np.full((*shape, len(_CAPS) + 1), np.nan)
    order = np.argsort(-matched.scores, kind="stable")
    for label in range(num_classes):
        rows = order[matched.labels[order] == label]
        _measure_class(matched, samples, label, rows, precision[:, label], recall[:, label])
        progress(label + 1, num_classes)
    return SampledMetrics(_summarize(precision, recall), _mean(precision[:, :, _ALL], 2))


def _measure_class(
    matched: MatchedDetections,
    samples: Int64[np.ndarray, "samples images"],
    label: int,
    rows: Int64[np.ndarray, " n"],
    precision: Float64[np.ndarray, "samples areas ious"],
    recall: Float64[np.ndarray, "samples areas ious caps"],
) -> None:
    images, ranks = matched.images[rows], matched.ranks[rows]
    caps = [ranks < cap for cap in _CAPS] + [ranks >= 0]
    # What stands behind the last hit changes no number.
    step = max(1, _CELLS // max(len(rows), 1))
    for area in range(len(AREAS)):
        own = matched.object_images[matched.counted[area] & (matched.object_labels == label)]
        objects = samples @ np.bincount(own, minlength=samples.shape[1])
        some = np.flatnonzero(objects)
        for start in range(0, len(some), step):
            part = some[start : start + step]
            weights = samples[part]
            for iou in range(len(IOU_THRESHOLDS)):
                hits, counts = matched.hits[area, iou, rows], ~matched.ignored[area, iou, rows]
                precision[part, area, iou] = _average_precision(weights[:, images[counts]], hits[counts], objects[part])
                for index, cap in enumerate(caps):
                    right = weights[:, images[hits & cap]].sum(1)
                    recall[part, area, iou, index] = right / objects[part]


def _average_precision(
    weights: Int64[np.ndarray, "samples n"], hits: Bool[np.ndarray, " n"], objects: Int64[np.ndarray, " samples"]
) -> Float64[np.ndarray, " samples"]:
    """Average precision of detections of a class, best first, each so many times."""
    at = np.flatnonzero(hits)
    if not len(at):
        return np.zeros(len(weights))
    right = np.cumsum(weights[:, at], 1)
    precision = right / np.maximum(np.cumsum(weights[:, : at[-1] + 1], 1)[:, at], 1)
    envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    # Each of COCO's recalls is read at the first hit that reaches it.
    reached = np.searchsorted(RECALLS, right / objects[:, None], side="right")
    values: Float64[np.ndarray, " samples"] = (envelope * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
    return values


def _summarize(
    precision: Float64[np.ndarray, "samples classes areas ious"],
    recall: Float64[np.ndarray, "samples classes areas ious caps"],
) -> Float64[np.ndarray, "samples 12"]:
    """Average over classes and thresholds, in the order of ``NUMBERS``."""
    small, medium, large = range(1, len(AREAS))
    numbers = [
        precision[:, :, _ALL],
        precision[:, :, _ALL, :1],
        precision[:, :, _ALL, IOU_THRESHOLDS.index(0.75)][..., None],
        *(precision[:, :, area] for area in (small, medium, large)),
        *(recall[:, :, _ALL, :, cap] for cap in range(len(_CAPS) + 1)),
        *(recall[:, :, area, :, -1] for area in (small, medium, large)),
    ]
    assert len(numbers) == len(NUMBERS)
    return np.stack([_mean(one, (1, 2)) for one in numbers], 1)


def _mean(values: Float64[np.ndarray, "*shape"], axis: int | tuple[int, ...]) -> Float64[np.ndarray, "*rest"]:
    """Average what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    counts = defined.sum(axis)
    means: Float64[np.ndarray, "*rest"] = np.where(defined, values, 0.0).sum(axis) / np.where(counts, counts, np.nan)
    return means
