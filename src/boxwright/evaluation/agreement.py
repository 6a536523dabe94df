"""Agreement of detections with the annotations of their images, measured by exchanging the annotations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.records import DetectionData, ObjectColumns, object_columns
from boxwright.evaluation.label_evidence import pairwise_iou
from boxwright_runtime.detections import Detections


class Agreement(NamedTuple):
    """Agreement of detections with annotations beyond that with exchanged ones.

    Both scores are in standard deviations of what an exchange at random gives. What a model knows of positions, sizes
    and frequencies in general, and not of the images, fits boxes of other images as well, so that the score of boxes is
    0 in the mean; so it is where boxes have nothing to do with their images. That of classes is 0 where they have
    nothing to do with their objects; it counts as knowledge that a class has larger boxes than another.

    Args:
        images: their number.
        boxes: boxes exchanged among images, whatever their classes.
        classes: classes exchanged among all objects; None where all have the same.
    """

    images: int
    boxes: float
    classes: float | None


def measure_agreement(data: DetectionData, detections: Mapping[int, Detections]) -> Agreement:
    """Compare detections with the objects of their images, and with those of each other image.

    An object's fit is the largest product of IoU and score over the detections, or over those of a class; an image's
    fit the mean of its objects. Boxes are relative to their image, so that they can be exchanged.

    Args:
        data: images, each with an object that is no crowd region.
        detections: of every image by image id.
    """
    records, objects = data.records, object_columns(data.records)
    objects = ObjectColumns(*(column[~objects.crowd] for column in objects))
    sizes = np.array([[record.width, record.height] * 2 for record in records], dtype=np.float64)
    boxes = np.concatenate([record.boxes()[~record.crowd] for record in records]) / sizes[objects.image_index]
    image_fits = np.zeros((len(records), len(records)))
    class_fits = np.zeros((len(objects.labels), len(data.categories)))
    counts = np.bincount(objects.image_index, minlength=len(records))
    for index, record in enumerate(records):
        predicted = detections[record.image_id]
        fits = pairwise_iou(boxes, predicted.boxes.double().cpu().numpy() / sizes[index])
        fits *= predicted.scores.double().cpu().numpy()
        best = fits.max(1, initial=0.0)
        image_fits[index] = np.bincount(objects.image_index, best, minlength=len(records)) / counts
        own = objects.image_index == index
        of_class = np.zeros((len(data.categories), int(own.sum())))
        np.maximum.at(of_class, predicted.labels.cpu().numpy(), fits[own].T)
        class_fits[own] = of_class.T
    is_same = len(set(objects.labels.tolist())) == 1
    return Agreement(
        images=len(records),
        boxes=exchange_score(image_fits, np.arange(len(records))),
        classes=None if is_same else exchange_score(class_fits, objects.labels),
    )


def exchange_score(fits: Float64[np.ndarray, "n k"], own: Int64[np.ndarray, " n"]) -> float:
    """Compute the standard deviations by which rows fit their own columns better than exchanged ones.

    With a the fits and c the own columns, sum_i a[i, c_i] less its mean over all permutations of c is
    sum_i d[i, c_i], and its variance sum_ij d[i, c_j]^2 / (n - 1), where d[i, j] is a[i, j] less the means of its row
    and its column, and plus that of both. Columns count as often as they are in c.

    Args:
        fits: of each row with each column.
        own: the column of each row.

    Returns:
        0 where every permutation fits as well.

    Source: Hoeffding, A combinatorial central limit theorem, Annals of Mathematical Statistics 22 (1951).
    """
    counts = np.bincount(own, minlength=fits.shape[1])
    of_rows = fits @ counts / len(own)
    residuals = fits - fits.mean(0) - of_rows[:, None] + of_rows.mean()
    variance = float((residuals**2 @ counts).sum()) / max(len(own) - 1, 1)
    # Rounding is no difference between permutations.
    if variance <= 1e-18 * float((fits**2 @ counts).sum()):
        return 0.0
    return float(np.take_along_axis(residuals, own[:, None], 1).sum()) / math.sqrt(variance)
