"""A detector over a data set: its detections and what COCO says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_metrics import CocoMetrics, evaluate_detections
from boxwright.structures import Batch, Detections, ImageSize


@runtime_checkable
class Evaluable(Protocol):
    """What evaluation knows of a detector."""

    def __call__(self, images: Tensor, padding_mask: Tensor | None) -> Any:
        """Pictures to the output that ``postprocess`` takes."""

    def postprocess(self, output: Any, image_sizes: list[ImageSize]) -> list[Detections]:
        """Detections in pixels of the original pictures, one entry per picture."""

    def modules(self) -> Iterator[nn.Module]:
        """The module and all in it."""


def evaluate(
    detector: Evaluable,
    loader: Iterable[Batch],
    data: DetectionData,
    *,
    device: torch.device,
    amp: bool = False,
    progress: Callable[[int], None] | None = None,
    observe: Callable[[Any, Batch], None] | None = None,
) -> tuple[CocoMetrics, dict[int, Detections]]:
    """Run a detector over a data set and compare what it finds with what is there.

    Args:
        detector: on ``device`` already.
        loader: batches of the pictures of ``data``.
        data: the pictures and their objects.
        device: where the detector runs.
        amp: run the network in bfloat16; what follows it stays in float32.
        progress: called after each batch with the number of pictures done.
        observe: called with the output for each batch, for what metrics do not show.

    Returns:
        The metrics, and the detections by image id, on the CPU.

    Raises:
        ValueError: where the loader's pictures or the detector's classes are not those of ``data``.
    """
    detections = detect(detector, loader, device=device, amp=amp, progress=progress, observe=observe)
    return evaluate_detections(data, detections), detections


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
                detections[image_id] = Detections(*(x.cpu() for x in one))
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
