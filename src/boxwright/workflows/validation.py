"""Evaluation on one split, during training and after it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from boxwright.data.image_check import ProgressCallback
from boxwright.data.loading.loader import BatchLoader, eval_batches, eval_loader
from boxwright.data.records import DetectionData
from boxwright.detector import Detector
from boxwright.devices import ComputePrecision, choose_precision, require_precision
from boxwright.evaluation.class_accuracy import class_accuracy
from boxwright.evaluation.evaluate import (
    ClassEvaluation,
    Evaluation,
    Observe,
    detect,
    evaluate_classifier,
    evaluate_detector,
    measure_detections,
)
from boxwright.evaluation.limits import MAX_DETECTIONS
from boxwright.evaluation.processes import copy_from_first, measure_together, rank_of_process
from boxwright_runtime.detections import Detections


class Validation:
    """Measures detectors on one split.

    Args:
        data: the split.
        batch_size: images that go through the network together.
        workers: processes that read images; 0 reads in this one.
        max_detections: see ``evaluate_detections``.
        precision: of the network; what follows it stays in float32. That of a run is the one it trains in.
    """

    def __init__(
        self,
        data: DetectionData,
        *,
        batch_size: int = 8,
        workers: int = 0,
        max_detections: int = MAX_DETECTIONS,
        precision: ComputePrecision = "float32",
    ) -> None:
        require_precision(precision)
        self.precision = precision
        self.data, self.batch_size, self.workers = data, batch_size, workers
        self.max_detections = max_detections
        self.num_images = len(data.records)

    def __call__(self, detector: Detector, limit: int | None = None) -> dict[str, Any]:
        """Return metrics as they stand in JSON; of the first ``limit`` images only where that is not None.

        Processes that train together have to call it at once, and divide the images.

        Raises:
            ValueError: an image cannot be read, or the model has diverged; in all processes.
        """
        rank, world_size = rank_of_process()
        folded, data, device = self._prepare(detector, limit)
        copy_from_first(folded)
        batches = eval_batches(data, input_format=detector.input_format, batch_size=self.batch_size)
        loader = self._load(data, detector, device, rank, world_size)
        is_classifier = detector.task == "classification"

        def measure(detections: dict[int, Detections]) -> dict[str, Any]:
            if is_classifier:
                return class_accuracy(data, detections).to_json()
            return measure_detections(data, detections, max_detections=self.max_detections).to_json()

        image_ids = [data.records[index].image_id for batch in batches for index in batch]
        return measure_together(
            partial(detect, folded, loader, device=device, amp=self._amp(device)), measure, image_ids
        )

    def measure(
        self,
        detector: Detector,
        limit: int | None = None,
        observe: Observe | None = None,
        progress: ProgressCallback | None = None,
    ) -> Evaluation:
        """Measure a detector. Its norms are folded first, in a copy: that is what will be used.

        Raises:
            ValueError: it is a classifier.
        """
        if detector.task != "detection":
            raise ValueError(f"boxes are measured of detectors, and this one is for {detector.task}")
        folded, data, device = self._prepare(detector, limit)
        return evaluate_detector(
            folded,
            self._load(data, detector, device),
            data,
            device=device,
            amp=self._amp(device),
            observe=observe,
            progress=progress,
            max_detections=self.max_detections,
        )

    def measure_classes(
        self, detector: Detector, limit: int | None = None, progress: ProgressCallback | None = None
    ) -> ClassEvaluation:
        """Measure a classifier."""
        folded, data, device = self._prepare(detector, limit)
        loader = self._load(data, detector, device)
        return evaluate_classifier(folded, loader, data, device=device, amp=self._amp(device), progress=progress)

    def detect(self, detector: Detector) -> dict[int, Detections]:
        """Return the detections of a detector, or the classes of a classifier, by image id, on the CPU."""
        folded, data, device = self._prepare(detector, None)
        return detect(folded, self._load(data, detector, device), device=device, amp=self._amp(device))

    def _amp(self, device: torch.device) -> bool:
        return choose_precision(self.precision, device) == "bfloat16"

    def _prepare(self, detector: Detector, limit: int | None) -> tuple[Detector, DetectionData, torch.device]:
        data = self.data if limit is None else replace(self.data, records=self.data.records[:limit])
        folded = detector.fold()
        device = next(folded.parameters()).device
        if device.type == "cpu":
            folded.to(memory_format=torch.channels_last)
        return folded, data, device

    def _load(
        self, data: DetectionData, detector: Detector, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> BatchLoader:
        return eval_loader(
            data,
            input_format=detector.input_format,
            batch_size=self.batch_size,
            num_workers=self.workers,
            pin_memory=device.type == "cuda",
            rank=rank,
            world_size=world_size,
        )
