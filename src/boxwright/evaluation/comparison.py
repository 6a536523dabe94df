"""Two evaluations on the same images: differences with intervals, and objects that one detects and the other misses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData, object_columns
from boxwright.evaluation.bootstrap import SampledMetrics, draw_samples, measure_samples
from boxwright.evaluation.coco_evaluator import IoUType
from boxwright.evaluation.coco_metrics import UNDEFINED, CocoMetrics
from boxwright.evaluation.evaluate import Evaluation, measure_detections
from boxwright.evaluation.matched_detections import AREAS, IOU_THRESHOLDS, MatchedDetections, match_detections
from boxwright.evaluation.operating_points import find_operating_points, thresholds_of

CONFIDENCE = 0.95
"""Of intervals."""

LEAST_SAMPLES = 100

_ROUNDING = 1e-9
"""Differences nearer to 0 are none."""

_LEAST_DEFINED = 0.5
"""Fraction of samples in which a number is defined, for it to have an interval."""


@dataclass(frozen=True)
class MetricDifference:
    """One number of two evaluations; -1, None and None where the data has no object (of that size).

    Args:
        name: of the number, or of the class whose AP it is.
        first: of the first evaluation.
        second: of the second one.
        lower: of the interval of 95 % that ``second - first`` lies in, over samples of the images; None where too few
            of them have such an object.
        upper: likewise.
    """

    name: str
    first: float
    second: float
    lower: float | None
    upper: float | None

    @property
    def value(self) -> float | None:
        """Difference, second minus first; None where there is none."""
        return None if UNDEFINED in (self.first, self.second) else self.second - self.first

    @property
    def is_clear(self) -> bool:
        """True where the interval does not hold 0."""
        if self.lower is None or self.upper is None:
            return False
        return self.lower > _ROUNDING or self.upper < -_ROUNDING

    def to_json(self) -> dict[str, Any]:
        """Return all values, ready for ``json.dump``."""
        return {**asdict(self), "difference": self.value}


class ImageDifference(NamedTuple):
    """Objects of one image that one evaluation detects alone, as positions in its record."""

    image_id: int
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]


@dataclass(frozen=True)
class ObjectCounts:
    """Objects by who detects them, at IoU 0.5 and above the thresholds of the best F1 of each.

    Args:
        both: objects that both detect.
        only_first: objects that the first alone detects.
        only_second: objects that the second alone detects.
        neither: objects that none detects.
        images: with objects that one alone detects, those with most of them first.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    images: tuple[ImageDifference, ...]

    @classmethod
    def of(cls, data: DetectionData, first: Bool[np.ndarray, " m"], second: Bool[np.ndarray, " m"]) -> ObjectCounts:
        """Count, from the objects that each detects, in the order of ``object_columns``."""
        objects = object_columns(data.records)
        starts = np.searchsorted(objects.image_index, np.arange(len(data.records)))
        images = []
        for index in np.unique(objects.image_index[first ^ second]).tolist():
            own = np.flatnonzero(objects.image_index == index)
            alone = [
                tuple((own[some[own] & ~other[own]] - starts[index]).tolist())
                for some, other in ((first, second), (second, first))
            ]
            images.append(ImageDifference(data.records[index].image_id, *alone))
        images.sort(key=lambda one: (-len(one.only_first) - len(one.only_second), one.image_id))
        return cls(
            both=int((first & second).sum()),
            only_first=int((first & ~second).sum()),
            only_second=int((second & ~first).sum()),
            neither=int((~objects.crowd & ~first & ~second).sum()),
            images=tuple(images),
        )


@dataclass(frozen=True, eq=False)
class EvaluationComparison:
    """Two evaluations on the same images.

    Args:
        numbers: the 12 numbers.
        per_class: AP of each class, by its label.
        objects: by who detects them.
        num_samples: of the images.
    """

    numbers: tuple[MetricDifference, ...]
    per_class: tuple[MetricDifference, ...]
    objects: ObjectCounts
    num_samples: int

    def to_json(self) -> dict[str, Any]:
        """Return all values, ready for ``json.dump``."""
        return {
            "numbers": [one.to_json() for one in self.numbers],
            "per_class": [one.to_json() for one in self.per_class],
            "objects": asdict(replace(self.objects, images=())),
            "images": [one._asdict() for one in self.objects.images],
            "num_samples": self.num_samples,
            "confidence": CONFIDENCE,
        }


class _Sampled(NamedTuple):
    """An evaluation of boxes or of masks, its detections matched, and its numbers in samples of the images."""

    metrics: CocoMetrics
    matched: MatchedDetections
    samples: SampledMetrics


def compare_evaluations(
    first: Evaluation,
    others: Iterable[Evaluation],
    *,
    iou_type: IoUType = "bbox",
    num_samples: int = 1000,
    seed: int = 0,
) -> Iterator[EvaluationComparison]:
    """Compare evaluations with the first, one after another, by a paired bootstrap over the images.

    Each sample has as many images as the data, drawn with replacement, the same ones for all. Its interval tells how
    far the difference may be by the choice of these images; not, how far by the seed of a training.

    Args:
        first: the one that the others are compared with; it is sampled once.
        others: on the same images and objects; classes may have another order.
        iou_type: overlap of boxes, or of masks, which all must have then.
        num_samples: of the images.
        seed: draws the samples.

    Yields:
        the comparison of each.

    Raises:
        ValueError: they are of other images, objects or classes, or there are too few samples.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentile intervals. hotcoco
    1.3 takes each image of a sample once, however often it was drawn, so that its intervals are too narrow.
    """
    check_sampling(num_samples, seed)
    data = restore_dropped(first.data)
    samples = draw_samples(len(data.records), num_samples, seed)
    own = _sample(data, first, iou_type, samples)
    for other in others:
        _check_same_objects(first.data, other.data)
        yield _compare(data, own, _sample(data, align_classes(first.data, other), iou_type, samples))


def _sample(
    data: DetectionData, evaluation: Evaluation, iou_type: IoUType, samples: Int64[np.ndarray, "samples images"]
) -> _Sampled:
    metrics = _metrics_of(evaluation, iou_type)
    matched = _match(data, evaluation, iou_type)
    return _Sampled(metrics, matched, measure_samples(matched, samples, len(data.categories)))


def _compare(data: DetectionData, first: _Sampled, second: _Sampled) -> EvaluationComparison:
    both, names = (first, second), [category.name for category in data.categories]
    numbers = [list(one.metrics.numbers().values()) for one in both]
    classes = [[row.AP for row in one.metrics.per_class] for one in both]
    of_numbers, of_classes = (b - a for a, b in zip(first.samples, second.samples, strict=True))
    return EvaluationComparison(
        numbers=_list_differences(list(first.metrics.numbers()), numbers, of_numbers),
        per_class=_list_differences(names, classes, of_classes),
        objects=ObjectCounts.of(data, *(_detected_objects(one.matched, names) for one in both)),
        num_samples=len(of_numbers),
    )


def check_sampling(num_samples: int, seed: int) -> None:
    """Make sure that intervals can be drawn; arguments as for ``compare_evaluations``.

    Raises:
        ValueError: there are too few samples, or the seed is negative.
    """
    if num_samples < LEAST_SAMPLES:
        raise ValueError(f"intervals of 95 % need {LEAST_SAMPLES} samples or more, not {num_samples}")
    if seed < 0:
        raise ValueError(f"seed is at least 0, not {seed}")


def _check_same_objects(first: DetectionData, second: DetectionData) -> None:
    objects = [_objects_by_image(restore_dropped(one)) for one in (first, second)]
    if objects[0].keys() != objects[1].keys():
        raise ValueError(f"{first.source} and {second.source} have other images: compare on the same ones")
    for image_id, boxes in objects[0].items():
        if not np.array_equal(boxes, objects[1][image_id]):
            raise ValueError(f"{first.source} and {second.source} have other objects in image {image_id}")


def _objects_by_image(data: DetectionData) -> dict[int, Float64[np.ndarray, "n 5"]]:
    return {
        record.image_id: np.concatenate([record.bbox_xywh, record.crowd[:, None]], 1, dtype=np.float64)
        for record in data.records
    }


def align_classes(data: DetectionData, evaluation: Evaluation) -> Evaluation:
    """Return an evaluation with the labels of other data, whose classes are the same in perhaps another order.

    Args:
        data: whose labels it gets.
        evaluation: on the same images and objects; returned as it is where its classes have this order.

    Raises:
        ValueError: its classes are others.
    """
    names, own = ([one.name for one in some.categories] for some in (data, evaluation.data))
    if sorted(names) != sorted(own):
        other = sorted(set(names) ^ set(own))
        raise ValueError(f"other classes: {', '.join(map(repr, other[:3]))} in one of both alone")
    if names == own:
        return evaluation
    labels = torch.tensor([names.index(name) for name in own])
    detections = {
        image_id: replace(one, labels=labels[torch.as_tensor(one.labels)], categories=data.categories)
        for image_id, one in evaluation.detections.items()
    }
    measured = measure_detections(data, detections, max_detections=evaluation.boxes.max_detections)
    return replace(measured, selection=evaluation.selection)


def _match(data: DetectionData, evaluation: Evaluation, iou_type: IoUType) -> MatchedDetections:
    return match_detections(
        data,
        evaluation.detections,
        iou_type=iou_type,
        iou_thresholds=IOU_THRESHOLDS,
        num_areas=len(AREAS),
        max_detections=evaluation.boxes.max_detections,
    )


def _metrics_of(evaluation: Evaluation, iou_type: IoUType) -> CocoMetrics:
    metrics = evaluation.boxes if iou_type == "bbox" else evaluation.masks
    if metrics is None:
        raise ValueError("masks are compared where both have them, and one has none")
    return metrics


def _list_differences(
    names: Sequence[str], values: Sequence[Sequence[float]], sampled: Float64[np.ndarray, "samples n"]
) -> tuple[MetricDifference, ...]:
    """List the numbers of both, with the intervals of differences of samples."""
    differences = []
    tails = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)
    for name, first, second, column in zip(names, *values, sampled.T, strict=True):
        defined = column[~np.isnan(column)]
        is_known = UNDEFINED not in (first, second) and len(defined) >= _LEAST_DEFINED * len(column)
        lower, upper = np.quantile(defined, tails).tolist() if is_known else (None, None)
        differences.append(MetricDifference(name, first, second, lower, upper))
    return tuple(differences)


def _detected_objects(matched: MatchedDetections, names: Sequence[str]) -> Bool[np.ndarray, " m"]:
    """Select objects that are detected at IoU 0.5 with the scores of the best F1."""
    thresholds = np.array(thresholds_of(find_operating_points(matched, names)))
    hits = matched.hits[0, 0] & (matched.scores >= thresholds[matched.labels])
    detected = np.zeros(len(matched.object_labels), dtype=np.bool_)
    detected[matched.objects[hits]] = True
    counted: Bool[np.ndarray, " m"] = detected & matched.counted[0]
    return counted
