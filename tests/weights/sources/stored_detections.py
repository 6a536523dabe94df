"""Detections that other projects' code made of weights that follow from names, and of stored statistics of norms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import boxwright
from boxwright.detector import Detector
from boxwright.weights.source import Layout
from boxwright_runtime.detections import Detections
from parity.formula import set_weights
from weights.source_checks import Differences, Expected, assert_same_detections, draw_images

DATA = Path(__file__).parent / "data"

NUM_QUERIES, SIZE = 30, 160


def build_stored(recipe: str, stored: str, overrides: Mapping[str, Any] | None = None) -> Detector:
    """Build the detector of a file of numbers, of seven classes, for inputs of 160 pixels."""
    options = {"head.num_queries": NUM_QUERIES, "image_size": SIZE, **(overrides or {})}
    detector = boxwright.build(recipe, num_classes=7, overrides=options)
    set_weights(detector)
    detector.float()
    with np.load(DATA / stored) as numbers:
        statistics = torch.from_numpy(numbers["statistics"].astype(np.float32))
    norms = [x for name, x in detector.named_buffers() if name.endswith(("running_mean", "running_var"))]
    for buffer, values in zip(norms, statistics.split([len(x) for x in norms]), strict=True):
        buffer.copy_(values)
    return detector.eval()


def save_layout(layout: Layout, path: Path, beside: Mapping[str, Any] | None = None) -> Path:
    """Write a layout as the authors' training does: a moving average, and beside it weights that nothing should read.

    Args:
        layout: to write.
        path: of the file.
        beside: further entries.
    """
    content: dict[str, Any] = dict(layout.tensors)
    for key in reversed(layout.wrap):
        content = {key: content}
    torch.save({"model": {"backbone.weight": torch.zeros(1)}, "last_epoch": 3, **(beside or {}), **content}, path)
    return path


def compare_stored(path: Path, stored: str) -> tuple[Detector, Differences]:
    """Read a file of weights, and compare what its detector detects with the detections of a file of numbers."""
    options = {"head.num_queries": NUM_QUERIES, "head.max_detections": NUM_QUERIES}
    detector = boxwright.load(path, overrides=options)
    return detector, compare_detections(detector, stored)


def compare_detections(detector: Detector, stored: str) -> Differences:
    """Compare what a detector detects with the detections of a file of numbers."""
    largest = Differences(0.0, 0.0)
    with np.load(DATA / stored) as numbers:
        detections = [torch.from_numpy(numbers[str(i)]) for i in range(3)]
    assert len(torch.cat(detections)[:, 5].unique()) > 1, "labels that are all alike compare nothing"
    for image, rows in zip(draw_images(), detections, strict=True):
        expected = Expected(rows[:, 4], rows[:, 5].long(), rows[:, :4])
        actual = detector.predict(image)
        assert isinstance(actual, Detections)
        largest = largest.join(assert_same_detections(actual, expected))
    return largest


def assert_same_model(one: Detector, other: Detector) -> None:
    """Make sure that two detectors have the same recipe and the same weights."""
    assert one.recipe is not None
    assert other.recipe is not None
    assert one.recipe.to_dict() == other.recipe.to_dict()
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
