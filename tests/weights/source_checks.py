"""Checks of sources: detections of another project's model and of ours from its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxwright.passport import Origin
from boxwright.weights.source import SourceFiles
from boxwright_runtime.detections import Detections

SHAPES = ((250, 310), (333, 190), (150, 420))
"""(height, width) of images: none a multiple of 128; for a maximal size of 1.5 times the size the last one binds."""


class Expected(NamedTuple):
    """Detections of another project, in pixels of the original image."""

    scores: Tensor
    labels: Tensor
    boxes: Tensor


class Differences(NamedTuple):
    """The largest differences between two detectors: of scores, and of boxes in pixels."""

    scores: float
    boxes: float

    def join(self, other: Differences) -> Differences:
        """Take the larger of each."""
        return Differences(max(self.scores, other.scores), max(self.boxes, other.boxes))


def draw_images(shapes: tuple[tuple[int, int], ...] = SHAPES) -> list[NDArray[np.uint8]]:
    """Draw images with edges, color and fine texture, so that every way of resizing shows; (h, w, 3) each."""
    images = []
    for index, (height, width) in enumerate(shapes):
        generator = np.random.default_rng(index)
        y, x = np.mgrid[:height, :width]
        planes = [np.sin(x / (3 + index) + channel) * np.cos(y / (5 + channel)) for channel in range(3)]
        image = 110 + 60 * np.stack(planes, -1) + generator.normal(0, 25, (height, width, 3))
        for _ in range(6):
            top, left = generator.integers(0, height - 40), generator.integers(0, width - 40)
            image[top : top + generator.integers(12, 40), left : left + generator.integers(12, 40)] = (
                generator.integers(0, 256, 3)
            )
        images.append(image.clip(0, 255).astype(np.uint8))
    return images


def assert_same_detections(
    ours: Detections, expected: Expected, *, score_tolerance: float = 1e-4, box_tolerance: float = 0.01
) -> Differences:
    """Make sure that both found the same, matched by label and box and not by rank: near-ties swap.

    Detections at the end of a full list may be missing from the other, where others have nearly their score. Returned
    are the largest differences of those in both.
    """
    largest = Differences(0.0, 0.0)
    assert len(expected.scores), "nothing to compare"
    edge = min(float(expected.scores.min()), float(ours.scores.min())) + score_tolerance if len(ours) else 0.0
    free = torch.ones(len(ours), dtype=torch.bool)
    for score, label, box in zip(*expected, strict=True):
        distance = (ours.boxes - box).abs().amax(-1) if len(ours) else torch.zeros(0)
        fits = free & (ours.labels == label) & (distance <= box_tolerance)
        fits &= (ours.scores - score).abs() <= score_tolerance
        if fits.any():
            index = int(torch.where(fits, distance, torch.inf).argmin())
            free[index] = False
            largest = largest.join(Differences(abs(float(ours.scores[index] - score)), float(distance[index])))
        else:
            nearest = f"nearest is {float(distance.min()):.4f} px away" if len(ours) else "we found nothing"
            assert float(score) <= edge, f"missing: label {int(label)}, score {float(score):.5f}, {box}; {nearest}"
    for index in torch.where(free)[0].tolist():
        assert float(ours.scores[index]) <= edge, f"only ours: {ours.labels[index]}, {ours.scores[index]:.5f}"
    return largest


def example_files(*names: str, shapes: Mapping[str, tuple[int, ...]] | None = None, **others: Any) -> SourceFiles:
    """Make files with tensors of these names, without content: an example for ``tests/weights/examples``.

    Args:
        names: of tensors whose shape does not matter.
        shapes: of tensors whose shape does.
        others: fields of ``SourceFiles``: ``config``, ``preprocessor``, ``extra``, ``release``.
    """
    shapes = {**dict.fromkeys(names, (1,)), **(shapes or {})}
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return SourceFiles(origin=Origin(source="example", kind=""), tensors=tensors, **others)
