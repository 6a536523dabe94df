"""The library that computes COCO's metrics: hotcoco, which gives what pycocotools gives. No other file knows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import hotcoco
import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.mask_file import run_lengths_of
from boxwright.data.records import DetectionData, Record, object_columns
from boxwright_runtime.detections import Detections

IoUType = Literal["bbox", "segm"]
"""Overlap of boxes, or of masks."""

Results = Float64[np.ndarray, "n 7"] | list[dict[str, Any]]
"""Rows of image number, left, top, width, height, score, label; or results with a segmentation, as in COCO's files."""

_IMAGES_AT_A_TIME = 500
"""Matches of so many images are in memory at once, as Python's lists."""

_LARGEST_AREA = 1e10
"""COCO leaves out objects of more square pixels, which no image has: such an area is a mistake."""


def run_evaluator(data: DetectionData, results: Results, iou_type: IoUType, max_detections: int) -> hotcoco.COCOeval:
    """Match results with the objects of a data set; what the library can say of that is to be asked of what it returns.

    Args:
        data: the images and their objects; boxes and areas are taken as they are in the file.
        results: their images are numbered as by ``image_numbers``, and labels stand for the ids of categories.
        iou_type: overlap of boxes, or of masks.
        max_detections: per image and class, the best so many count.

    Raises:
        ValueError: masks are needed, and an object has none.
    """
    evaluator = _make_evaluator(data, results, iou_type, max_detections)
    evaluator.evaluate()
    return evaluator


class ImageMatch(NamedTuple):
    """Detections of one class in one image, best first, matched with the objects of that class in it.

    Args:
        image: number of the image; see ``image_numbers``.
        label: of the class.
        area: index of the range of areas.
        rows: of the detections, among the results.
        objects: of the class in the image, among all objects of the data.
        matches: of each detection at each threshold, its object among all objects of the data; -1 where it has none.
        ignored: detections that count for nothing at each threshold: in a crowd, or of another area.
        counted: objects that are to be detected: of this area, and no crowd.
    """

    image: int
    label: int
    area: int
    rows: Int64[np.ndarray, " n"]
    objects: Int64[np.ndarray, " m"]
    matches: Int64[np.ndarray, "t n"]
    ignored: Bool[np.ndarray, "t n"]
    counted: Bool[np.ndarray, " m"]


def match_images(
    data: DetectionData,
    results: Results,
    iou_type: IoUType,
    max_detections: int,
    *,
    iou_thresholds: Sequence[float],
    num_areas: int,
) -> Iterator[ImageMatch]:
    """Match results with objects at other thresholds, and return the matches themselves, some images at a time.

    Args:
        data: as for ``run_evaluator``, like the next three.
        results: their images are numbered as by ``image_numbers``.
        iou_type: overlap of boxes, or of masks.
        max_detections: per image and class, the best so many count.
        iou_thresholds: least IoU of a match.
        num_areas: 1 for objects of any size, 4 for those of COCO's sizes as well.
    """
    evaluator = _make_evaluator(data, results, iou_type, max_detections)
    params = evaluator.params
    params.iou_thrs = list(iou_thresholds)
    ranges, names = params.area_rng[:num_areas], params.area_rng_lbl[:num_areas]
    params.area_rng, params.area_rng_lbl = ranges, names
    areas = {tuple(limits): index for index, limits in enumerate(ranges)}
    for start in range(0, len(data.records), _IMAGES_AT_A_TIME):
        params.img_ids = list(range(start, min(start + _IMAGES_AT_A_TIME, len(data.records))))
        evaluator.evaluate()
        for one in evaluator.eval_imgs:
            if one is not None:
                yield _read_match(one, areas[tuple(one["aRng"])])


def _read_match(one: Mapping[str, Any], area: int) -> ImageMatch:
    # Ids of the evaluator count from 1, and 0 is none.
    matches, rows = (np.array(one[name], dtype=np.int64) - 1 for name in ("dtMatches", "dtIds"))
    shape = (len(one["dtMatches"]), len(rows))
    return ImageMatch(
        image=one["image_id"],
        label=one["category_id"],
        area=area,
        rows=rows,
        objects=np.array(one["gtIds"], dtype=np.int64) - 1,
        matches=matches.reshape(shape),
        ignored=np.array(one["dtIgnore"], dtype=np.bool_).reshape(shape),
        counted=np.array(one["gtInDenominator"], dtype=np.bool_),
    )


def overlap_objects(
    data: DetectionData, record: Record, detections: Detections, iou_type: IoUType
) -> Float64[np.ndarray, "n m"]:
    """Compute the IoU of detections of an image with its objects, of any classes, as the evaluator does.

    With a crowd it is the part of the detection that lies in it.

    Args:
        data: that the image is of, for messages.
        record: the image.
        detections: of it.
        iou_type: overlap of boxes, or of masks.

    Raises:
        ValueError: masks are needed, and an object has none.
    """
    shape = (len(detections), len(record.labels))
    if 0 in shape:
        return np.zeros(shape)
    detected: Any
    objects: Any
    if iou_type == "bbox":
        detected, objects = _box_results({record.image_id: detections}, {record.image_id: 0})[:, 1:5], record.bbox_xywh
    else:
        detected, objects = list(detections.masks or ()), list(_segmentations(record, data))
    overlaps: Float64[np.ndarray, "n m"] = np.asarray(hotcoco.mask.iou(detected, objects, record.crowd.tolist()))
    return overlaps.reshape(shape)


def _make_evaluator(data: DetectionData, results: Results, iou_type: IoUType, max_detections: int) -> hotcoco.COCOeval:
    ground_truth = _ground_truth(data, image_numbers(data), iou_type)
    evaluator = hotcoco.COCOeval(ground_truth, ground_truth.load_res(results), iou_type)
    evaluator.params.max_dets = [1, 10, max_detections]
    return evaluator


def results_of(data: DetectionData, detections: Mapping[int, Detections], iou_type: IoUType) -> Results:
    """Make results of detections by image id; see ``run_evaluator``.

    Raises:
        ValueError: masks are needed, and a detection has none.
    """
    numbers = image_numbers(data)
    return _box_results(detections, numbers) if iou_type == "bbox" else _mask_results(detections, numbers)


def image_numbers(data: DetectionData) -> dict[int, int]:
    """Number the images in the order of their ids: the evaluator computes with 64 bits, and partly with floats."""
    return {image_id: number for number, image_id in enumerate(sorted(record.image_id for record in data.records))}


def _ground_truth(data: DetectionData, numbers: Mapping[int, int], iou_type: IoUType) -> hotcoco.COCO:
    records = data.records
    objects = object_columns(records)
    images = [{"id": numbers[one.image_id], "width": one.width, "height": one.height} for one in records]
    own = np.array([image["id"] for image in images], dtype=np.int64)
    segmentations = [s for r in records for s in _segmentations(r, data)] if iou_type == "segm" else None
    # Labels stand in for category ids, and ids of annotations count from 1: the file's may be anything.
    return hotcoco.COCO.from_arrays(
        images,
        [{"id": label, "name": category.name} for label, category in enumerate(data.categories)],
        own[objects.image_index],
        objects.labels,
        objects.bbox_xywh,
        area=np.abs(objects.area).clip(max=_LARGEST_AREA),
        iscrowd=objects.crowd.astype(np.int64),
        segmentation=segmentations,
    )


def _segmentations(record: Record, data: DetectionData) -> tuple[Any, ...]:
    segmentations = record.segmentations or (None,) * len(record.labels)
    for annotation_id, segmentation in zip(record.annotation_ids, segmentations, strict=True):
        if not segmentation:
            raise ValueError(
                f"{data.source}: annotation {annotation_id} of image {record.image_id} has no "
                "segmentation; masks cannot be evaluated on this data, boxes (iou_type 'bbox') can"
            )
    return tuple(map(run_lengths_of, segmentations))


def _box_results(detections: Mapping[int, Detections], numbers: Mapping[int, int]) -> Float64[np.ndarray, "n 7"]:
    """Make rows of image number, left, top, width, height, score, label."""
    rows = []
    for image_id, one in detections.items():
        row = np.empty((len(one.scores), 7))
        row[:, 0] = numbers[image_id]
        row[:, 1:5] = one.boxes.detach().cpu().double().numpy()
        row[:, 3:5] -= row[:, 1:3]
        row[:, 5] = one.scores.detach().cpu().double().numpy()
        row[:, 6] = one.labels.cpu().numpy()
        rows.append(row)
    return np.concatenate([np.empty((0, 7)), *rows])


def _mask_results(detections: Mapping[int, Detections], numbers: Mapping[int, int]) -> list[dict[str, Any]]:
    """Make results without boxes: with one, its area would stand for the mask's."""
    results = []
    for image_id, one in detections.items():
        masks = one.masks or ()
        if len(masks) != len(one.scores):
            raise ValueError(
                f"image {image_id} has {len(one.scores)} detections and {len(masks)} masks; "
                "iou_type 'segm' needs one run-length encoded mask per detection"
            )
        for score, label, mask in zip(one.scores.tolist(), one.labels.tolist(), masks, strict=True):
            results.append({"image_id": numbers[image_id], "category_id": label, "score": score, "segmentation": mask})
    return results
