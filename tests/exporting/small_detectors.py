"""Small detectors with weights that are far from special, as files would have them."""

from __future__ import annotations

import warnings

import torch

from boxwright.compose.detectors import build
from boxwright.detector import Detector
from random_weights import calibrate, settle, shake

QUERIES = {
    "image_size": 96,
    "backbone.width": 8,
    "neck.hidden_dim": 16,
    "neck.num_heads": 2,
    "neck.feedforward_dim": 16,
    "head.hidden_dim": 16,
    "head.num_queries": 20,
    "head.max_detections": 30,
    "head.decoder.num_heads": 2,
    "head.decoder.num_layers": 2,
    "head.decoder.feedforward_dim": 16,
}
"""Options of a small RT-DETR."""


def build_small(recipe: str, options: dict[str, object], seed: int = 0) -> Detector:
    """Build a detector of three classes, and move its weights away from their start."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detector = build(recipe, num_classes=3, overrides=options)
    shake(detector)
    size = detector.input_format.padded_size(*detector.input_format.input_size(90, 110))
    images = torch.rand(2, 3, *size)
    if detector.task == "classification":
        calibrate(detector, images)
    else:
        settle(detector, images)
    return detector.eval()
