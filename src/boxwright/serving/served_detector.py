"""Detectors behind a service, as ``boxwright predict`` prepares them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from boxwright.detector import Detector
from boxwright.devices import ComputeOptions, choose_device
from boxwright.serving.served_model import ServedModel
from boxwright.workflows.models import load_detector
from boxwright.workflows.observer import Observer
from boxwright.workflows.streams import batch_functions


def open_detector(
    model: str | Path | Detector,
    *,
    threads: int | None,
    device: str | ComputeOptions,
    trusted: Collection[str],
    observer: Observer,
    overrides: Mapping[str, Any] | None,
) -> ServedModel:
    """Load a detector for a service; see ``open_model``.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: not a model, or a damaged one; or tiles are asked for.
    """
    compute = ComputeOptions.of(device)
    if compute.tiles is not None or compute.sides_std:
        raise ValueError(
            "a service predicts whole images, and tells boxes, scores and classes: leave out tiles and sides"
        )
    if threads is not None:
        # Before the first product: threads of torch do not survive a fork.
        torch.set_num_threads(threads)
    detector = load_detector(model, trusted=trusted, observer=observer, overrides=overrides)
    if not isinstance(model, Detector):
        detector = detector.to(choose_device(compute.device))
    prepare, predict = batch_functions(detector, compute)
    return ServedModel(
        task=detector.task,
        categories=detector.categories,
        input_format=detector.input_format,
        thresholds=None if detector.tuning is None else detector.thresholds(),
        has_masks=detector.mask_region is not None,
        can_fork=next(detector.parameters()).device.type == "cpu",
        facts={
            "runtime": f"torch {torch.__version__}",
            "precision": compute.precision,
            "recipe": None if detector.recipe is None else detector.recipe.to_dict(),
            "passport": None if detector.passport is None else detector.passport.to_dict(),
        },
        prepare=prepare,
        predict=predict,
    )
