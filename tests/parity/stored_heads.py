"""Detectors with query heads beside other projects' numbers: predictions, terms of the loss, and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from formula import make_images, set_weights
from stored_gradients import check_gradients
from torch import Tensor

import boxwright
from boxwright.detector import Detector
from boxwright.queries.distribution_output import DistributionOutput
from boxwright.queries.refined_queries import RefinedOutput
from boxwright.structures import Targets
from conformance import compare_tensors, compare_terms, note_inputs

SIZE = 64
"""Height and width of the images."""

DATA = Path(__file__).parent / "data"


def read_numbers(recipe: str) -> dict[str, np.ndarray]:
    """Read the numbers of the authors of a recipe."""
    with np.load(DATA / f"authors_{recipe}.npz") as numbers:
        return dict(numbers)


def build_small(recipe: str, num_queries: int, overrides: Mapping[str, Any] | None = None) -> Detector:
    """Build a recipe of five classes for images of ``SIZE``, in float64 on the weights of ``formula.py``."""
    small = {"image_size": SIZE, "head.num_queries": num_queries, "head.denoising.num_queries": 8}
    detector = boxwright.build(recipe, num_classes=5, overrides=small | dict(overrides or {}))
    set_weights(detector)
    # The norms' own statistics, in training too: the few cells of the coarsest level make poor ones.
    return detector.eval()


def check_detector(
    detector: Detector,
    stored: Mapping[str, np.ndarray],
    targets: list[Targets],
    *,
    images: Tensor | None = None,
    mask: Tensor | None = None,
    logits: float,
    boxes: float,
    terms: float = 1e-6,
    gradients: float = 1e-6,
) -> None:
    """Compare what a detector predicts, its losses, and their gradients.

    Args:
        detector: in evaluation mode.
        stored: numbers of the authors.
        targets: of the images.
        images: (b, 3, h, w); ``make_images`` of ``SIZE`` where None.
        mask: (b, h, w), true on padding.
        logits: absolute tolerance of logits.
        boxes: that of boxes, in fractions of the image.
        terms: relative tolerance of each term of the loss.
        gradients: that of each gradient, relative to its norm.
    """
    images = make_images(len(targets), SIZE) if images is None else images
    note_inputs(images, targets=targets)
    with torch.no_grad():
        check_predictions(detector(images, mask), stored, logits=logits, boxes=boxes)
    losses = detector.loss(detector(images, mask, targets), targets)
    check_terms(losses, stored, tolerance=terms)
    torch.stack(list(losses.values())).sum().backward()
    grads = {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}
    check_gradients(grads, stored, tolerance=gradients, floor=1e-9)


def check_predictions(
    output: RefinedOutput | DistributionOutput, stored: Mapping[str, np.ndarray], *, logits: float, boxes: float
) -> None:
    """Compare the predictions of the last layer: ``logits`` and ``boxes``, each with its absolute tolerance."""
    compare_tensors("outputs", output.logits[-1], stored["logits"], limit=logits, name="logits")
    compare_tensors("outputs", output.boxes_cxcywh_norm[-1], stored["boxes"], limit=boxes, name="boxes")


def check_terms(
    losses: Mapping[str, Tensor], stored: Mapping[str, np.ndarray], *, prefix: str = "", tolerance: float = 1e-6
) -> None:
    """Compare the terms of a loss.

    Args:
        losses: ours, by name.
        stored: ``term_names`` and ``terms``, with other numbers beside them.
        prefix: of these two.
        tolerance: relative.
    """
    names, terms = (stored[f"{prefix}{kind}"].tolist() for kind in ("term_names", "terms"))
    compare_terms(losses, dict(zip(names, terms, strict=True)), limit=tolerance)
