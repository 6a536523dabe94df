"""Metrics of samples of the images, drawn with replacement: how far the numbers of a data set may be by chance."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64
from scipy.sparse import csr_array

from boxwright.evaluation.coco_metrics import NUMBERS
from boxwright.evaluation.matched_detections import AREAS, IOU_THRESHOLDS, MatchedDetections
from boxwright.evaluation.precision_recall import RECALLS

_ALL = AREAS.index("all")
_STEPS = np.append(RECALLS, np.inf)
_CAPS = (1, 10, sys.maxsize)
"""Detections per image and class that the three recalls count; all that were matched are the last."""


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
    matched: MatchedDetections, samples: Int64[np.ndarray, "samples images"], num_classes: int
) -> SampledMetrics:
    """Compute COCO's numbers of samples of the images, in which an image may be several times, or not at all.

    Args:
        matched: at ``IOU_THRESHOLDS`` and of all ``AREAS``.
        samples: how often each image is in each sample.
        num_classes: of the data.

    Source: pycocotools (COCOeval.accumulate), on a data set with so many copies of each image, to 1e-12.
    """
    shape = (num_classes, len(AREAS), len(IOU_THRESHOLDS), len(samples))
    precision, recall = np.full(shape, np.nan), np.full((*shape[:3], len(_CAPS), len(samples)), np.nan)
    order = np.argsort(-matched.scores, kind="stable")
    times = np.ascontiguousarray(samples.T.astype(np.int32))
    for label in range(num_classes):
        rows = order[matched.labels[order] == label]
        for area in range(len(AREAS)):
            own = matched.object_images[matched.counted[area] & (matched.object_labels == label)]
            objects = times[own].sum(0)
            for iou in range(len(IOU_THRESHOLDS)):
                counts = rows[~matched.ignored[area, iou, rows]]
                detections = (matched.images[counts], matched.ranks[counts], matched.hits[area, iou, counts])
                # Of objects of one size, there is one recall.
                caps = _CAPS if area == _ALL else _CAPS[-1:]
                values = _measure(times, *detections, objects, caps)
                precision[label, area, iou], recall[label, area, iou, -len(caps) :] = values
    return SampledMetrics(_summarize(precision, recall), _mean(precision[:, _ALL], 1).T)


def _measure(
    times: Int32[np.ndarray, "images samples"],
    images: Int64[np.ndarray, " n"],
    ranks: Int64[np.ndarray, " n"],
    hits: Bool[np.ndarray, " n"],
    objects: Int64[np.ndarray, " samples"],
    caps: Sequence[int],
) -> tuple[Float64[np.ndarray, " samples"], Float64[np.ndarray, "caps samples"]]:
    """Average precision and recalls of detections of a class, best first, each as often as its image was drawn."""
    at = np.flatnonzero(hits)
    undefined = np.where(objects > 0, 0.0, np.nan)
    if not len(at):
        return undefined, np.broadcast_to(undefined, (len(caps), len(objects)))
    # What stands behind the last hit changes no number; between two hits, only how many of each image there are.
    last = at[-1] + 1
    segments = np.searchsorted(at, np.arange(last))
    shape = (len(at), len(times))
    counted = csr_array((np.ones(last, dtype=np.int32), (segments, images[:last])), shape=shape)
    total = np.cumsum(counted @ times, 0, dtype=np.int32)
    own = times[images[at]]
    right = np.cumsum(own, 0, dtype=np.int32)
    precision = right / np.maximum(total, 1)
    envelope = np.maximum.accumulate(precision[::-1], 0)[::-1]
    # Each of COCO's recalls is read at the first hit that reaches it.
    reached = _count_reached(right / np.maximum(objects, 1))
    average = (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)
    recalls = np.stack([own[ranks[at] < cap].sum(0) for cap in caps]) / np.maximum(objects, 1)
    return average + undefined, recalls + undefined


def _count_reached(recall: Float64[np.ndarray, "hits samples"]) -> Int64[np.ndarray, "hits samples"]:
    """Count the recalls of COCO up to each value, as ``np.searchsorted(RECALLS, recall, side="right")`` does."""
    nearest = (recall * 100).astype(np.int64)
    # The product is rounded, and so are COCO's recalls: it may be off by one.
    counts: Int64[np.ndarray, "hits samples"] = (
        nearest + 1 + (_STEPS[nearest + 1] <= recall) - (_STEPS[nearest] > recall)
    )
    return counts


def _summarize(
    precision: Float64[np.ndarray, "classes areas ious samples"],
    recall: Float64[np.ndarray, "classes areas ious caps samples"],
) -> Float64[np.ndarray, "samples 12"]:
    """Average over classes and thresholds, in the order of ``NUMBERS``."""
    sizes = range(1, len(AREAS))
    numbers = [
        precision[:, _ALL],
        precision[:, _ALL, :1],
        precision[:, _ALL, IOU_THRESHOLDS.index(0.75)][:, None],
        *(precision[:, area] for area in sizes),
        *(recall[:, _ALL, :, cap] for cap in range(len(_CAPS))),
        *(recall[:, area, :, -1] for area in sizes),
    ]
    assert len(numbers) == len(NUMBERS)
    return np.stack([_mean(one, (0, 1)) for one in numbers], 1)


def _mean(values: Float64[np.ndarray, "*shape"], axis: int | tuple[int, ...]) -> Float64[np.ndarray, "*rest"]:
    """Average what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    counts = defined.sum(axis)
    means: Float64[np.ndarray, "*rest"] = np.where(defined, values, 0.0).sum(axis) / np.where(counts, counts, np.nan)
    return means
