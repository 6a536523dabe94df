"""Errors of detections, one row each, and the average precision without some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import IoUType, overlap_objects
from boxwright.evaluation.matched_detections import MatchedDetections, group_indices
from boxwright.evaluation.precision_recall import average_precision
from boxwright_runtime.detections import Detections

HIT, CLASSIFICATION, LOCALIZATION, BOTH, DUPLICATE, INVENTION = range(6)
"""Kinds of detections."""

FOREGROUND_IOU = 0.5
"""IoU from which a detection is of an object."""

BACKGROUND_IOU = 0.1
"""IoU up to which a detection has to do with no object."""


class ErrorTable(NamedTuple):
    """Detections that count, best first, and the objects; see ``MatchedDetections``.

    Args:
        images: number of the image of each detection.
        positions: of each detection among those of its image.
        labels: of each detection.
        scores: of each detection.
        kinds: of each detection.
        objects: that each detection is of: of a hit its own, of an error the one that it is too far from, whose class
            it has not, or that has a better detection; -1 for none.
        mended: errors that are hits when they are corrected: the best of those of an object without a hit. The
            others are gone then.
        object_images: number of the image of each object.
        object_labels: of each object.
        missed: objects without a hit, and without an error that could become one.
        num_objects: to be detected, of each class.
    """

    images: Int64[np.ndarray, " n"]
    positions: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    kinds: Int64[np.ndarray, " n"]
    objects: Int64[np.ndarray, " n"]
    mended: Bool[np.ndarray, " n"]
    object_images: Int64[np.ndarray, " m"]
    object_labels: Int64[np.ndarray, " m"]
    missed: Bool[np.ndarray, " m"]
    num_objects: Int64[np.ndarray, " k"]

    def precision_without(
        self, errors: Bool[np.ndarray, " n"] | None = None, missed: Bool[np.ndarray, " m"] | None = None
    ) -> Float64[np.ndarray, " k"]:
        """Return AP50 of each class if some errors were corrected.

        Args:
            errors: detections that are corrected: those that can be are hits then, the others gone.
            missed: objects that need not be detected.

        Returns:
            NaN for classes without objects, and for those without any left, and without detections.
        """
        hits, labels, stay = self.kinds == HIT, self.labels, np.ones(len(self.kinds), dtype=np.bool_)
        if errors is not None:
            corrected = errors & self.mended
            hits = hits | corrected
            labels = np.where(corrected, np.append(self.object_labels, -1)[self.objects], labels)
            stay = ~errors | self.mended
        left = self.num_objects
        if missed is not None:
            left = left - np.bincount(self.object_labels[missed], minlength=len(left))
        hits, labels = hits[stay], labels[stay]
        order = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels[order], np.arange(1, len(left)))
        values = np.full(len(left), np.nan)
        for label, rows in enumerate(np.split(order, ends)):
            if left[label] > 0:
                values[label] = average_precision(hits[rows], int(left[label]))
            elif self.num_objects[label] > 0 and len(rows):
                values[label] = 0.0
        return values


def tabulate_errors(
    data: DetectionData, detections: Mapping[int, Detections], matched: MatchedDetections, iou_type: IoUType
) -> ErrorTable:
    """Find the kind of each detection.

    Args:
        data: the images and their objects, those without area included.
        detections: by image id.
        matched: with the objects, at ``FOREGROUND_IOU``.
        iou_type: overlap of boxes, or of masks.

    Source: Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors (ECCV 2020), section 3, and
    tidecv, whose order of tests this is. Differs in that detections in crowds, which count for nothing, are no errors,
    that 100 detections count per image and class rather than per image, and that classes without objects are left out
    of means. Checked against hotcoco's, and once against tidecv.
    """
    ignored = matched.ignored[0, 0]
    order = np.argsort(-matched.scores, kind="stable")
    order = order[~ignored[order]]
    kinds = np.full(len(matched.labels), HIT)
    objects = matched.objects.copy()
    rows_of = group_indices(matched.images, len(matched.image_ids))
    objects_of = group_indices(matched.object_images, len(matched.image_ids))
    records = {record.image_id: record for record in data.records}
    has_hit = np.zeros(len(matched.object_labels), dtype=np.bool_)
    has_hit[matched.objects[matched.hits[0, 0]]] = True
    for image_id, rows, own in zip(matched.image_ids, rows_of, objects_of, strict=True):
        wrong = rows[~matched.hits[0, 0, rows] & ~ignored[rows]]
        if not len(wrong):
            continue
        overlaps = overlap_objects(data, records[image_id], detections[image_id], iou_type)[matched.positions[wrong]]
        real = matched.counted[0, own]
        same = matched.labels[wrong][:, None] == matched.object_labels[own[real]][None]
        kinds[wrong], targets = _classify(overlaps[:, real], same, has_hit[own[real]])
        objects[wrong] = np.append(own[real], -1)[targets]
    mended = _select_mended(kinds, objects, has_hit, order)
    is_target = np.zeros_like(has_hit)
    is_target[objects[mended]] = True
    num_objects = np.bincount(matched.object_labels[matched.counted[0]], minlength=len(data.categories))
    return ErrorTable(
        images=matched.images[order],
        positions=matched.positions[order],
        labels=matched.labels[order],
        scores=matched.scores[order],
        kinds=kinds[order],
        objects=objects[order],
        mended=mended[order],
        object_images=matched.object_images,
        object_labels=matched.object_labels,
        missed=matched.counted[0] & ~has_hit & ~is_target,
        num_objects=num_objects,
    )


def _classify(
    overlaps: Float64[np.ndarray, "n m"], same: Bool[np.ndarray, "n m"], has_hit: Bool[np.ndarray, " m"]
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """Find the kind of detections of an image that are no hits, and the object of each in it; -1 for none."""
    if not overlaps.shape[1]:
        return np.full(len(overlaps), INVENTION), np.full(len(overlaps), -1)
    everyone = np.arange(len(overlaps))
    own, other, taken = overlaps * same, overlaps * ~same, overlaps * same * has_hit
    nearest, nearest_other, nearest_taken = own.argmax(1), other.argmax(1), taken.argmax(1)
    nearest_iou = own[everyone, nearest]
    tests = [
        (nearest_iou >= BACKGROUND_IOU) & (nearest_iou <= FOREGROUND_IOU),
        other.max(1) >= FOREGROUND_IOU,
        taken.max(1) >= FOREGROUND_IOU,
        overlaps.max(1) <= BACKGROUND_IOU,
    ]
    kinds = np.select(tests, [LOCALIZATION, CLASSIFICATION, DUPLICATE, INVENTION], BOTH)
    return kinds, np.select(tests[:3], [nearest, nearest_other, nearest_taken], -1)


def _select_mended(
    kinds: Int64[np.ndarray, " n"],
    objects: Int64[np.ndarray, " n"],
    has_hit: Bool[np.ndarray, " m"],
    order: Int64[np.ndarray, " k"],
) -> Bool[np.ndarray, " n"]:
    """Select the best error of each object without a hit, among those that could be one."""
    candidates = order[np.isin(kinds[order], (CLASSIFICATION, LOCALIZATION))]
    candidates = candidates[~has_hit[objects[candidates]]]
    _, first = np.unique(objects[candidates], return_index=True)
    mended = np.zeros(len(kinds), dtype=np.bool_)
    mended[candidates[first]] = True
    return mended
