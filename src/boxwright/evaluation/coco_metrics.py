"""The 12 numbers of COCO, in all and per class, from detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import IoUType, Results, results_of, run_evaluator
from boxwright.evaluation.limits import MAX_DETECTIONS, class_totals, coco_limit
from boxwright.structures import Category
from boxwright_runtime.detections import Detections

NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The names of the 12 numbers, in COCO's order."""

UNDEFINED = -1.0
"""The number that stands, as in pycocotools, where there is no ground truth: a mean over nothing."""

# Axes of the evaluator's arrays: IoU 0.50..0.95 | recall 0..1 | class | area | cap on the detections.
_IOU50, _IOU75 = 0, 5
_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_MAX1, _MAX10, _MOST = range(3)


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class; -1 where it has no object (of that size).

    Args:
        name: of the class.
        category_id: of the class, as in the annotation file.
        num_objects: objects in the ground truth, crowd regions not counted.
        AP: mean over IoU 0.50, 0.55, ..., 0.95.
        AP50: at IoU 0.5.
        APs: of objects below 32 x 32 pixels.
        APm: of objects between that and 96 x 96 pixels.
        APl: of objects above that.
        AP75: at IoU 0.75.
        AR: average recall with a hundred detections per image, or ``max_detections``.
        precision50: precision at IoU 0.5 where recall is 0, 0.01, ..., 1; empty without objects.
    """

    name: str
    category_id: int
    num_objects: int
    AP: float
    AP50: float
    APs: float
    APm: float
    APl: float
    AP75: float = UNDEFINED
    AR: float = UNDEFINED
    precision50: tuple[float, ...] = ()


@dataclass(frozen=True)
class CocoMetrics:
    """The 12 numbers of COCO in [0, 1], or -1 where the data has no ground truth (of that size).

    Args:
        AP: average precision, mean over classes and IoU 0.50, 0.55, ..., 0.95.
        AP50: at IoU 0.5.
        AP75: at IoU 0.75.
        APs: of objects below 32 x 32 pixels.
        APm: of objects between that and 96 x 96 pixels.
        APl: of objects above that.
        AR1: average recall with one detection per image and class.
        AR10: with ten.
        AR100: with a hundred, or ``max_detections``.
        ARs: AR100 of objects below 32 x 32 pixels.
        ARm: of objects between that and 96 x 96 pixels.
        ARl: of objects above that.
        per_class: one row per class, in the order of the labels.
        notes: lines for the user on what the numbers do not show.
        max_detections: per image and class, the best so many detections were evaluated; COCO's is 100.
    """

    AP: float
    AP50: float
    AP75: float
    APs: float
    APm: float
    APl: float
    AR1: float
    AR10: float
    AR100: float
    ARs: float
    ARm: float
    ARl: float
    per_class: tuple[ClassMetrics, ...] = ()
    notes: tuple[str, ...] = ()
    max_detections: int = MAX_DETECTIONS

    def numbers(self) -> dict[str, float]:
        """Return the 12 numbers by name, in COCO's order; AR100 is AR300 where 300 detections were evaluated."""
        names = {"AR100": f"AR{self.max_detections}"}
        return {names.get(name, name): getattr(self, name) for name in NUMBERS}

    def to_json(self, *, curves: bool = False) -> dict[str, Any]:
        """Return the 12 numbers and ``per_class``, ready for ``json.dump``; -1 stays -1, as in pycocotools.

        Args:
            curves: also ``precision50`` of each class, for a report.
        """
        rows = [asdict(row) for row in self.per_class]
        for row in rows:
            if not curves:
                del row["precision50"]
        return {**self.numbers(), "per_class": rows}


def evaluate_detections(
    data: DetectionData,
    detections: Mapping[int, Detections],
    *,
    iou_type: IoUType = "bbox",
    max_detections: int = MAX_DETECTIONS,
) -> CocoMetrics:
    """Compare detections with the objects of a data set, as COCO does.

    Of equal scores in one image the first one counts as the better.

    Args:
        data: the images and their objects; boxes and areas are taken as they are in the file, and so are objects
            without area inside their image, which are dropped in training.
        detections: by image id, in pixels of the original image. An image that is not
            among them counts as one without detections, with a note.
        iou_type: overlap of boxes, or of masks, which every detection must have then.
        max_detections: per image and class, the best so many are evaluated; numbers with another than COCO's 100
            are no longer COCO's.

    Returns:
        The numbers. Those of ``segm`` take an object's size from the file and a detection's from its mask.

    Raises:
        ValueError: where detections belong to no image, are not finite or have a label that the data lacks,
            where masks are needed and missing, or where ``max_detections`` is less than 10.

    Source: pycocotools.cocoeval (COCOeval, summarize), against which it is checked to 1e-12. Differs in one
    case: an annotation with id 0 is an object like all others, where pycocotools never finds it.
    """
    data = restore_dropped(data)
    _check(data, detections)
    results = results_of(data, detections, iou_type)
    metrics = measure_results(data, results, iou_type=iou_type, max_detections=max_detections)
    return replace(metrics, notes=notes_of(data, detections, max_detections))


def measure_results(
    data: DetectionData, results: Results, *, iou_type: IoUType = "bbox", max_detections: int = MAX_DETECTIONS
) -> CocoMetrics:
    """Do the same with results that are ready for the library, without notes; see ``evaluate_detections``."""
    if max_detections < 10:
        raise ValueError(f"max_detections is at least 10, for AR10, not {max_detections}")
    evaluator = run_evaluator(data, results, iou_type, max_detections)
    evaluator.accumulate()
    assert evaluator.eval is not None  # it is there after accumulate
    precision, recall = evaluator.eval["precision"], evaluator.eval["recall"]
    of_class = class_totals(data)
    rows = tuple(
        _class_metrics(category, int(of_class[label]), precision[:, :, label], recall[:, label])
        for label, category in enumerate(data.categories)
    )
    return CocoMetrics(**_numbers(precision, recall), per_class=rows, notes=(), max_detections=max_detections)


def _numbers(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    p, r = precision[..., _MOST], recall[..., _MOST]
    return {
        "AP": mean_defined(p[..., _ALL]),
        "AP50": mean_defined(p[_IOU50, ..., _ALL]),
        "AP75": mean_defined(p[_IOU75, ..., _ALL]),
        "APs": mean_defined(p[..., _SMALL]),
        "APm": mean_defined(p[..., _MEDIUM]),
        "APl": mean_defined(p[..., _LARGE]),
        "AR1": mean_defined(recall[..., _ALL, _MAX1]),
        "AR10": mean_defined(recall[..., _ALL, _MAX10]),
        "AR100": mean_defined(r[..., _ALL]),
        "ARs": mean_defined(r[..., _SMALL]),
        "ARm": mean_defined(r[..., _MEDIUM]),
        "ARl": mean_defined(r[..., _LARGE]),
    }


def _class_metrics(category: Category, num_objects: int, precision: np.ndarray, recall: np.ndarray) -> ClassMetrics:
    p = precision[..., _MOST]
    return ClassMetrics(
        name=category.name,
        category_id=category.id,
        num_objects=num_objects,
        AP=mean_defined(p[..., _ALL]),
        AP50=mean_defined(p[_IOU50, ..., _ALL]),
        APs=mean_defined(p[..., _SMALL]),
        APm=mean_defined(p[..., _MEDIUM]),
        APl=mean_defined(p[..., _LARGE]),
        AP75=mean_defined(p[_IOU75, ..., _ALL]),
        AR=mean_defined(recall[..., _ALL, _MOST]),
        precision50=tuple(p[_IOU50, :, _ALL].tolist()) if num_objects else (),
    )


def mean_defined(values: np.ndarray) -> float:
    """Average what is defined: classes without objects (of that size) are left out."""
    defined = values[values > UNDEFINED]
    return float(defined.mean()) if defined.size else UNDEFINED


def _check(data: DetectionData, detections: Mapping[int, Detections]) -> None:
    known = {record.image_id for record in data.records}
    num_classes = len(data.categories)
    for image_id, one in detections.items():
        if image_id not in known:
            raise ValueError(
                f"{data.source}: there is no image {image_id}, for which there are detections; "
                "evaluate on the data that was predicted"
            )
        if not (one.boxes.isfinite().all() and one.scores.isfinite().all()):
            raise ValueError(
                f"image {image_id}: a detection's box or score is not a finite number, so the model has "
                "diverged; train it again with a lower learning rate or without mixed precision"
            )
        for label in one.labels.unique().tolist():
            if label not in range(num_classes):
                raise ValueError(
                    f"image {image_id}: a detection has label {label}, but {data.source} has only the "
                    f"{num_classes} classes 0..{num_classes - 1}; evaluate on data of the model's own classes"
                )


def notes_of(data: DetectionData, detections: Mapping[int, Detections], max_detections: int) -> tuple[str, ...]:
    """List in one line each what metrics of detections leave out; arguments as for ``evaluate_detections``."""
    num_classes = len(data.categories)
    cut = sum(int(one.labels.bincount(minlength=1).max()) > max_detections for one in detections.values())
    missing = sum(record.image_id not in detections for record in data.records)
    absent = int((class_totals(data) == 0).sum())
    lines = (
        missing and f"Images not predicted, counted as without detections: {missing} of {len(data.records)}.",
        absent and f"Classes without objects in this data, left out of the means: {absent} of {num_classes}.",
        max_detections != MAX_DETECTIONS
        and f"Counted are the best {max_detections} detections per image and class, where COCO counts "
        f"{MAX_DETECTIONS}: the numbers are not COCO's.",
        coco_limit(data, max_detections),
        cut
        and f"Images with more than {max_detections} detections of one class, of which the best {max_detections} "
        f"count: {cut}.",
    )
    return tuple(line for line in lines if line)
