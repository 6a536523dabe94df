"""A detector over a data set: its detections, and metrics of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from boxwright.data.image_check import ProgressCallback
from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData
from boxwright.evaluation.class_accuracy import ClassAccuracy, class_accuracy, likeliest_classes
from boxwright.evaluation.coco_metrics import CocoMetrics, evaluate_detections
from boxwright.evaluation.confusion import Confusion, confuse_classes, count_confusion
from boxwright.evaluation.error_kinds import DetectionErrors, find_errors
from boxwright.evaluation.findings import ErrorFinding, find_causes
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.evaluation.matched_detections import MatchedDetections, match_detections
from boxwright.evaluation.operating_points import OperatingPoint, find_operating_points, thresholds_of
from boxwright.evaluation.score_calibration import Calibration, calibrate, calibrate_scores
from boxwright.evaluation.slices import Slice, slice_metrics
from boxwright.prediction import evaluation_mode
from boxwright.structures import Batch, ImageSize, SelectionQuality
from boxwright_runtime.detections import Detections

Observe = Callable[[Any, Batch], None]
"""Called with the output for each batch, for what metrics do not show."""


@runtime_checkable
class Evaluable(Protocol):
    """The part of a detector that evaluation needs."""

    def __call__(self, images: Tensor, padding_mask: Tensor | None) -> Any:
        """Images to the output that ``postprocess`` takes."""

    def postprocess(self, output: Any, image_sizes: list[ImageSize]) -> list[Detections]:
        """Detections in pixels of the original images, one entry per image."""

    def modules(self) -> Iterator[nn.Module]:
        """The module and all in it."""


@dataclass(frozen=True, eq=False)
class ClassEvaluation:
    """Classes of images, and how often they are right.

    Args:
        data: the images and their classes.
        detections: by image id, on the CPU.
        accuracy: top-1 and top-5, in all and of each class.
    """

    data: DetectionData
    detections: dict[int, Detections]
    accuracy: ClassAccuracy

    @cached_property
    def confusion(self) -> Confusion:
        """Images by their own class and the likeliest one; nothing is of the background."""
        own, likeliest, _ = likeliest_classes(self.data, self.detections)
        return confuse_classes(own, likeliest, [one.name for one in self.data.categories])

    @cached_property
    def calibration(self) -> Calibration:
        """Scores of the likeliest classes beside the fraction of images where these are right."""
        own, likeliest, scores = likeliest_classes(self.data, self.detections)
        return calibrate_scores(scores, own == likeliest, likeliest, len(self.data.categories))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on what the numbers do not show."""
        return self.accuracy.notes

    def to_json(self) -> dict[str, Any]:
        """Return the numbers; see ``ClassAccuracy.to_json``."""
        return self.accuracy.to_json()


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Detections, and COCO's metrics of them.

    Args:
        data: the images and their objects.
        detections: by image id, on the CPU.
        boxes: metrics of boxes.
        masks: metrics of masks, where the detector predicts them.
        selection: how good the selected queries are, where the head selects any and they were counted.
    """

    data: DetectionData
    detections: dict[int, Detections]
    boxes: CocoMetrics
    masks: CocoMetrics | None = None
    selection: SelectionQuality | None = None

    @cached_property
    def matched(self) -> MatchedDetections:
        """Boxes matched with the objects at IoU 0.5."""
        return match_detections(restore_dropped(self.data), self.detections, max_detections=self.boxes.max_detections)

    @cached_property
    def thresholds(self) -> tuple[OperatingPoint, ...]:
        """Threshold of the best F1 of each class, by its label; see ``find_operating_points`` for other targets."""
        return find_operating_points(self.matched, [one.name for one in self.data.categories])

    @cached_property
    def confusion(self) -> Confusion:
        """Confusion of classes by boxes with the scores of ``thresholds``; see ``count_confusion``."""
        return count_confusion(self.data, self.detections, thresholds=thresholds_of(self.thresholds))

    @cached_property
    def calibration(self) -> Calibration:
        """Scores beside the fraction of boxes that are right; see ``calibrate``."""
        return calibrate(self.matched, len(self.data.categories))

    @cached_property
    def slices(self) -> tuple[Slice, ...]:
        """Metrics of boxes by the size of objects and by their number in an image; see ``slice_metrics``."""
        return slice_metrics(self.data, self.detections, max_detections=self.boxes.max_detections)

    @cached_property
    def errors(self) -> DetectionErrors:
        """Errors of the boxes by kind, with the AP50 that each kind costs; see ``find_errors``."""
        return find_errors(self.data, self.detections, matched=self.matched)

    @cached_property
    def findings(self) -> tuple[ErrorFinding, ...]:
        """The largest causes of lost AP50 of boxes, in words; see ``find_causes``."""
        return find_causes(self.data, self.errors, thresholds_of(self.thresholds))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on what the numbers do not show."""
        return tuple(dict.fromkeys(self.boxes.notes + (self.masks.notes if self.masks else ())))

    def to_json(self, *, curves: bool = False) -> dict[str, Any]:
        """Return the numbers of boxes, those of masks as ``segm``, and of queries Prop_cls and Prop_both.

        Args:
            curves: see ``CocoMetrics.to_json``.

        Source: of ``selection``, RT-DETR's Table 4.
        """
        numbers = self.boxes.to_json(curves=curves)
        if self.masks is not None:
            numbers["segm"] = self.masks.to_json(curves=curves)
        if self.selection is not None:
            confident, fitting = self.selection.ratios()
            ratios = {"selected": self.selection.selected, "Prop_cls": confident, "Prop_both": fitting}
            numbers["selection"] = ratios
        return numbers


def evaluate_detector(
    detector: Evaluable,
    loader: Iterable[Batch],
    data: DetectionData,
    *,
    device: torch.device,
    amp: bool = False,
    progress: ProgressCallback | None = None,
    observe: Observe | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """Run a detector over a data set and compare its detections with the ground truth: boxes, and masks if it has any.

    Args:
        detector: on ``device`` already.
        loader: batches of the images of ``data``.
        data: the images and their objects.
        device: the device of the detector.
        amp: run the network in bfloat16; what follows it stays in float32.
        progress: called after each batch as ``progress(done, total)``, in images.
        observe: called with the output for each batch, for what metrics do not show.
        max_detections: see ``evaluate_detections``.

    Raises:
        ValueError: the loader's images or the detector's classes are not those of ``data``, or masks are predicted
            and ``data`` has none.
    """
    total = len(data.records)
    detections = detect(detector, loader, device=device, amp=amp, progress=progress, observe=observe, total=total)
    return measure_detections(data, detections, max_detections=max_detections)


def measure_detections(
    data: DetectionData, detections: dict[int, Detections], *, max_detections: int = MAX_DETECTIONS
) -> Evaluation:
    """Compare detections with the ground truth: boxes, and masks if there are any; see ``evaluate_detector``."""
    boxes = evaluate_detections(data, detections, max_detections=max_detections)
    if all(one.masks is None for one in detections.values()):
        return Evaluation(data, detections, boxes)
    masks = evaluate_detections(data, detections, iou_type="segm", max_detections=max_detections)
    return Evaluation(data, detections, boxes, masks)


def evaluate_classifier(
    detector: Evaluable,
    loader: Iterable[Batch],
    data: DetectionData,
    *,
    device: torch.device,
    amp: bool = False,
    progress: ProgressCallback | None = None,
) -> ClassEvaluation:
    """Do the same for a detector whose task is classification; arguments as for ``evaluate_detector``."""
    detections = detect(detector, loader, device=device, amp=amp, progress=progress, total=len(data.records))
    return ClassEvaluation(data, detections, class_accuracy(data, detections))


def detect(
    detector: Evaluable,
    loader: Iterable[Batch],
    *,
    device: torch.device,
    amp: bool = False,
    progress: ProgressCallback | None = None,
    observe: Observe | None = None,
    total: int = 0,
) -> dict[int, Detections]:
    """Return the detections of a detector by image id, on the CPU; arguments as for ``evaluate_detector``.

    Args:
        total: number of images, for ``progress``.
    """
    detections: dict[int, Detections] = {}
    with evaluation_mode(cast(nn.Module, detector)):
        for batch in loader:
            predicted = _detect_batch(detector, batch, device, amp, observe)
            detections |= {
                image_id: Detections(
                    one.boxes.clone(), one.scores.clone(), one.labels.clone(), one.masks, one.categories
                )
                for image_id, one in zip(batch.image_ids, predicted, strict=True)
            }
            if progress is not None:
                progress(len(detections), total)
    return detections


@torch.inference_mode()
def _detect_batch(
    detector: Evaluable, batch: Batch, device: torch.device, amp: bool, observe: Observe | None
) -> list[Detections]:
    """Detections on the CPU; tensors of inference mode, which nobody can change in place outside of it."""
    images = batch.images.to(device, non_blocking=True)
    mask = None if batch.padding_mask is None else batch.padding_mask.to(device, non_blocking=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
        output = detector(images, mask)
    if observe is not None:
        observe(output, batch)
    return [one.cpu() for one in detector.postprocess(output, batch.sizes)]
