"""Detections of a whole data set matched with its objects as COCO does, in columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.records import DetectionData, object_columns
from boxwright.evaluation.coco_evaluator import ImageMatch, IoUType, image_numbers, match_images, results_of
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright_runtime.arrays import to_numpy
from boxwright_runtime.detections import Detections

IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""COCO's."""

AREAS = ("all", "small", "medium", "large")
"""COCO's, in its order."""


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """Detections and objects in columns; detections in the order of COCO: by image, in it by class, best first.

    Images are numbered in the order of their ids, objects in the order of ``object_columns``.

    Args:
        image_ids: by the number of the image.
        images: number of the image of each detection.
        positions: of each detection among those of its image.
        labels: of each detection.
        scores: of each detection.
        ranks: of each detection among those of its class in its image; 0 for the best.
        objects: that each detection is matched with at the first threshold; -1 for none.
        hits: by area and threshold.
        ignored: by area and threshold: neither hits nor false.
        object_images: number of the image of each object.
        object_labels: of each object.
        counted: by area: objects that are to be detected; crowds are not.
    """

    image_ids: tuple[int, ...]
    images: Int64[np.ndarray, " n"]
    positions: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    ranks: Int64[np.ndarray, " n"]
    objects: Int64[np.ndarray, " n"]
    hits: Bool[np.ndarray, "a t n"]
    ignored: Bool[np.ndarray, "a t n"]
    object_images: Int64[np.ndarray, " m"]
    object_labels: Int64[np.ndarray, " m"]
    counted: Bool[np.ndarray, "a m"]

    def of_images(self, images: Int64[np.ndarray, " k"]) -> MatchedDetections:
        """Return the detections and objects of some images, by their numbers, which stay."""
        chosen = np.isin(self.images, images)
        has_objects = np.isin(self.object_images, images)
        rows = np.append(np.cumsum(has_objects) - 1, -1)
        return replace(
            self,
            images=self.images[chosen],
            positions=self.positions[chosen],
            labels=self.labels[chosen],
            scores=self.scores[chosen],
            ranks=self.ranks[chosen],
            objects=rows[self.objects[chosen]],
            hits=self.hits[..., chosen],
            ignored=self.ignored[..., chosen],
            object_images=self.object_images[has_objects],
            object_labels=self.object_labels[has_objects],
            counted=self.counted[..., has_objects],
        )

    def with_scores(self, scores: Float64[np.ndarray, " n"]) -> MatchedDetections:
        """Return the same with other scores, as matched by those that they had."""
        return replace(self, scores=scores)


def match_detections(
    data: DetectionData,
    detections: Mapping[int, Detections],
    *,
    iou_type: IoUType = "bbox",
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS[:1],
    num_areas: int = 1,
    max_detections: int = MAX_DETECTIONS,
) -> MatchedDetections:
    """Match detections with the objects of a data set.

    Args:
        data: the images and their objects, those without area included; see ``restore_dropped``.
        detections: by image id.
        iou_type: overlap of boxes, or of masks.
        iou_thresholds: least IoU of a match.
        num_areas: 1 for objects of any size, 4 for those of ``AREAS``.
        max_detections: per image and class, the best so many are there.

    Raises:
        ValueError: masks are needed, and an object or a detection has none.
    """
    results = results_of(data, detections, iou_type)
    by_area: list[list[ImageMatch]] = [[] for _ in range(num_areas)]
    for one in match_images(
        data, results, iou_type, max_detections, iou_thresholds=iou_thresholds, num_areas=num_areas
    ):
        by_area[one.area].append(one)
    for matches in by_area:
        matches.sort(key=lambda one: (one.image, one.label))
    return _join_matches(data, detections, by_area, len(iou_thresholds))


def _join_matches(
    data: DetectionData, detections: Mapping[int, Detections], by_area: Sequence[Sequence[ImageMatch]], thresholds: int
) -> MatchedDetections:
    first = by_area[0]
    counts = np.array([len(one.rows) for one in first], dtype=np.int64)
    rows = _concatenate(one.rows for one in first)
    # Without any there is no axis to join them along.
    nothing = np.zeros((thresholds, 0), dtype=np.int64)
    matches = np.stack([np.concatenate([nothing, *(one.matches for one in area)], 1) for area in by_area])
    ignored = np.stack([np.concatenate([nothing != 0, *(one.ignored for one in area)], 1) for area in by_area])
    numbers = image_numbers(data)
    objects = object_columns(data.records)
    of_record = np.array([numbers[record.image_id] for record in data.records], dtype=np.int64)
    counted = np.zeros((len(by_area), len(objects.labels)), dtype=np.bool_)
    for one in chain.from_iterable(by_area):
        counted[one.area, one.objects] = one.counted
    scores = [to_numpy(one.scores).astype(np.float64) for one in detections.values()]
    return MatchedDetections(
        image_ids=tuple(sorted(numbers, key=numbers.__getitem__)),
        images=np.repeat(np.array([one.image for one in first], dtype=np.int64), counts),
        positions=_concatenate(np.arange(len(one)) for one in detections.values())[rows],
        labels=np.repeat(np.array([one.label for one in first], dtype=np.int64), counts),
        scores=np.concatenate([np.zeros(0), *scores])[rows],
        ranks=_concatenate(map(np.arange, counts)),
        objects=matches[0, 0],
        hits=(matches >= 0) & ~ignored,
        ignored=ignored,
        object_images=of_record[objects.image_index],
        object_labels=objects.labels,
        counted=counted,
    )


def _concatenate(parts: Iterable[Int64[np.ndarray, " _k"]]) -> Int64[np.ndarray, " n"]:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def group_indices(groups: Int64[np.ndarray, " n"], count: int) -> list[Int64[np.ndarray, " _k"]]:
    """Return the indices of each group, in order."""
    order = np.argsort(groups, kind="stable")
    # A split at nothing is one part, also of no groups.
    return np.split(order, np.searchsorted(groups[order], np.arange(1, count)))[:count]
