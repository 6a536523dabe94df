"""Detections of any project, in COCO's results form, to metrics: without images and without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.masks import check_masks
from boxwright.evaluation.coco_evaluator import IoUType
from boxwright.evaluation.coco_metrics import CocoMetrics, measure_results, notes_of
from boxwright.evaluation.coco_results import read_results
from boxwright.evaluation.evaluate import Evaluation
from boxwright.evaluation.limits import MAX_DETECTIONS, note_nothing_to_count
from boxwright.workflows.observer import Observer
from boxwright.workflows.reading import Data, read_split


def evaluate_results(
    results: str | Path,
    data: Data,
    *,
    split: str = "val",
    max_detections: int = MAX_DETECTIONS,
    observer: Observer | None = None,
) -> Evaluation:
    """Measure a results file: the 12 COCO numbers of boxes and, where it has any, of masks.

    Args:
        results: a JSON file of rows with image_id, category_id, score, and bbox or segmentation or both.
        data: the annotations: a folder, or ``DataFiles`` with the annotation file of the split. No image is read.
        split: the name of the split.
        max_detections: count so many per image and class; COCO counts 100.
        observer: hears notes; they become warnings where None.

    Raises:
        FileNotFoundError: a file or folder does not exist.
        ValueError: the file is not in COCO's results form, its ids are not those of the data, or faulty data.

    **Source**: pycocotools (loadRes and COCOeval), against which it is checked to 1e-12: a row with a box and a mask
    has the area of its box, also among masks. A model's masks are measured with their own area by ``evaluate``.
    """
    observer = observer or Observer()
    if max_detections < MAX_DETECTIONS:
        raise ValueError(f"max_detections is at least COCO's {MAX_DETECTIONS}, not {max_detections}")
    read = restore_dropped(read_split(data, split, with_images=False, observer=observer))
    rows = read_results(Path(results), read)
    if nothing := note_nothing_to_count(read, split):
        observer.note(nothing)
    if rows.masks is not None:
        check_masks(read, crowds=True)
    detections = rows.detections(read)
    notes = notes_of(read, detections, max_detections)

    def measure(iou_type: IoUType) -> CocoMetrics:
        metrics = measure_results(
            read, rows.for_evaluator(read, iou_type), iou_type=iou_type, max_detections=max_detections
        )
        return replace(metrics, notes=notes)

    return Evaluation(read, detections, measure("bbox"), None if rows.masks is None else measure("segm"))
