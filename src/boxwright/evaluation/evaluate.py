"""A detector over a data set: its detections and what COCO says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from boxwright.data.records import DetectionData
from boxwright.detections import Detections
from boxwright.evaluation.class_accuracy import ClassAccuracy, class_accuracy
from boxwright.evaluation.coco_metrics import CocoMetrics, evaluate_detections
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.structures import Batch, ImageSize


@runtime_checkable
class Evaluable(Protocol):
    """What evaluation knows of a detector."""

    def __call__(self, images: Tensor, padding_mask: Tensor | None) -> Any:
        """Images to the output that ``postprocess`` takes."""

    def postprocess(self, output: Any, image_sizes: list[ImageSize]) -> list[Detections]:
        """Detections in pixels of the original images, one entry per image."""

    def modules(self) -> Iterator[nn.Module]:
        """The module and all in it."""


class ClassEvaluation(NamedTuple):
    """What classes were found, by image id and on the CPU, and how often they are right."""

    detections: dict[int, Detections]
    accuracy: ClassAccuracy

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers do not show, one line each, for the user."""
        return self.accuracy.notes

    def to_json(self) -> dict[str, Any]:
        """The numbers; see ``ClassAccuracy.to_json``."""
        return self.accuracy.to_json()


class Evaluation(NamedTuple):
    """What was found, by image id and on the CPU, and what COCO says of it.

    ``masks`` are the metrics of masks, where the detector finds them.
    """

    detections: dict[int, Detections]
    boxes: CocoMetrics
    masks: CocoMetrics | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the numbers do not show, one line each, for the user."""
        return tuple(dict.fromkeys(self.boxes.notes + (self.masks.notes if self.masks else ())))

    def to_json(self, *, curves: bool = False) -> dict[str, Any]:
        """The numbers of boxes, and those of masks as ``segm`` where there are any; see ``CocoMetrics.to_json``."""
        masks = {"segm": self.masks.to_json(curves=curves)} if self.masks else {}
        return self.boxes.to_json(curves=curves) | masks


def evaluate(
    detector: Evaluable,
    loader: Iterable[Batch],
    data: DetectionData,
    *,
    device: torch.device,
    amp: bool = False,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[Any, Batch], None] | None = None,
    max_detections: int = MAX_DETECTIONS,
) -> Evaluation:
    """Run a detector over a data set and compare what it finds with what is there: boxes, and masks if it finds them.

    Args:
        detector: on ``device`` already.
        loader: batches of the images of ``data``.
        data: the images and their objects.
        device: where the detector runs.
        amp: run the network in bfloat16; what follows it stays in float32.
        progress: called after each batch with the number of images done.
        observe: called with the output for each batch, for what metrics do not show.
        max_detections: see ``evaluate_detections``.

    Raises:
        ValueError: where the loader's images or the detector's classes are not those of ``data``, or where masks
            are found and ``data`` has none.
    """
    detections = detect(detector, loader, device=device, amp=amp, progress=progress, observe=observe)
    boxes = evaluate_detections(data, detections, max_detections=max_detections)
    if all(found.masks is None for found in detections.values()):
        return Evaluation(detections, boxes)
    masks = evaluate_detections(data, detections, task="segm", max_detections=max_detections)
    return Evaluation(detections, boxes, masks)


def evaluate_classes(
    detector: Evaluable,
    loader: Iterable[Batch],
    data: DetectionData,
    *,
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> ClassEvaluation:
    """The same for a detector whose task is classification; arguments as in ``evaluate``."""
    detections = detect(detector, loader, device=device, progress=progress)
    return ClassEvaluation(detections, class_accuracy(data, detections))


def detect(
    detector: Evaluable,
    loader: Iterable[Batch],
    *,
    device: torch.device,
    amp: bool = False,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[Any, Batch], None] | None = None,
) -> dict[int, Detections]:
    """The detections of a detector by image id, on the CPU; arguments as in ``evaluate``."""
    detections: dict[int, Detections] = {}
    with _evaluation_mode(detector), torch.inference_mode():
        for batch in loader:
            images = batch.images.to(device, non_blocking=True)
            mask = None if batch.padding_mask is None else batch.padding_mask.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=amp):
                output = detector(images, mask)
            if observe is not None:
                observe(output, batch)
            found = detector.postprocess(output, batch.sizes)
            for image_id, one in zip(batch.image_ids, found, strict=True):
                detections[image_id] = one.cpu()
            if progress is not None:
                progress(len(detections))
    return detections


@contextmanager
def _evaluation_mode(detector: Evaluable) -> Iterator[None]:
    # Module by module: frozen parts of a detector in training are in evaluation mode already and stay so.
    before = [(module, module.training) for module in detector.modules()]
    for module, _ in before:
        module.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
