"""A score at exactly the threshold counts in every place that has a threshold of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import boxwright
from boxwright.drawing import draw_detections
from boxwright.structures import Category
from boxwright_runtime.detections import Detections


def a_score(trained: Path, image: Path) -> tuple[Detections, float]:
    """All detections of an image, and the score of the fifth, as a number that it equals exactly."""
    everything = boxwright.load(trained).predict(image)
    assert isinstance(everything, Detections)
    limit = float(everything.scores[4])
    assert torch.tensor(limit) == everything.scores[4]
    return everything, limit


def test_of_a_detector_and_a_stream(trained: Path, drawn: Path) -> None:
    image = drawn / "images" / "val_00000.jpg"
    everything, limit = a_score(trained, image)
    detector = boxwright.load(trained)
    some = detector.predict(image, threshold=limit)
    assert isinstance(some, Detections)
    assert torch.equal(some.scores, everything.scores[everything.scores >= limit])
    assert limit in some.scores.tolist()
    (streamed,) = detector.stream([image], threshold=limit)
    assert torch.equal(streamed.scores, some.scores)


def test_of_the_workflow(trained: Path, drawn: Path) -> None:
    image = drawn / "images" / "val_00000.jpg"
    first = boxwright.predict(trained, [image], threshold=0.0, device="cpu")
    (everything,) = first.detections.values()
    limit = float(everything.scores[4])
    (some,) = boxwright.predict(trained, [image], threshold=limit, device="cpu").detections.values()
    assert len(some) == int((everything.scores >= limit).sum())
    assert limit in some.scores.tolist()


def test_of_drawings() -> None:
    image = np.full((60, 90, 3), 128, dtype=np.uint8)
    boxes, scores = torch.tensor([[10.0, 10, 40, 40], [50, 10, 80, 40]]), torch.tensor([0.5, 0.25])
    detections = Detections(boxes, scores, torch.tensor([0, 0]))
    drawn = [
        np.asarray(draw_detections(image, detections, [Category(1, "a")], threshold=threshold))
        for threshold in (0.25, 0.5, 0.75)
    ]
    lower_edges = [[bool((one[39, column] != 128).any()) for column in (25, 65)] for one in drawn]
    assert lower_edges == [[True, True], [True, False], [False, False]]
