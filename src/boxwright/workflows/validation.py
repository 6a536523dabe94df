"""Evaluation as the training loop and ``boxwright eval`` ask for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from boxwright.data.loading.loader import BatchLoader, eval_loader
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.evaluation.evaluate import ClassEvaluation, Evaluation, evaluate, evaluate_classes
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.structures import Batch


class Validation:
    """Measures detectors on one split.

    Args:
        data: the split.
        batch_size: images that go through the network together.
        workers: processes that read images; 0 reads in this one.
        max_detections: see ``evaluate_detections``.
    """

    def __init__(
        self,
        data: DetectionData,
        *,
        batch_size: int = 8,
        workers: int = 0,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        self.data, self.batch_size, self.workers = data, batch_size, workers
        self.max_detections = max_detections
        self.num_images = len(data.records)

    def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        """Metrics as they stand in JSON; of the first ``limit`` images only where given."""
        if detector.task == "classification":
            return self.measure_classes(detector, limit).to_json()
        return self.measure(detector, limit).to_json()

    def measure(
        self,
        detector: Detector,
        limit: int | None = None,
        observe: Callable[[Any, Batch], None] | None = None,
    ) -> Evaluation:
        """Metrics, and what was found. The detector is fused first: that is what will be used.

        Raises:
            ValueError: it is a classifier.
        """
        if detector.task != "detection":
            raise ValueError(f"boxes are measured of detectors, and this one is for {detector.task}")
        fused, loader, data, device = self._ready(detector, limit)
        return evaluate(fused, loader, data, device=device, observe=observe, max_detections=self.max_detections)

    def measure_classes(self, detector: Detector, limit: int | None = None) -> ClassEvaluation:
        """The same of a classifier."""
        fused, loader, data, device = self._ready(detector, limit)
        return evaluate_classes(fused, loader, data, device=device)

    def _ready(
        self, detector: Detector, limit: int | None
    ) -> tuple[Detector, BatchLoader, DetectionData, torch.device]:
        data = self.data if limit is None else replace(self.data, records=self.data.records[:limit])
        fused = detector.fold()
        device = next(fused.parameters()).device
        if device.type == "cpu":
            fused.to(memory_format=torch.channels_last)
        loader = eval_loader(
            data,
            input_format=detector.input_format,
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
        )
        return fused, loader, data, device
