"""Query selection, and its quality on queries that are counted by hand."""

from __future__ import annotations

import torch

from boxwright.queries import NormalizedTargets, measure_selection
from boxwright.structures import SelectionQuality

BOX = [0.5, 0.5, 0.2, 0.2]
NEAR = [0.52, 0.5, 0.2, 0.2]  # IoU 0.82
FAR = [0.2, 0.2, 0.2, 0.2]
HALF = [0.5, 0.5, 0.2, 0.09]  # IoU 0.45


def test_counts() -> None:
    logits = torch.full((2, 4, 3), -3.0)
    logits[0, 0, 1] = logits[0, 1, 0] = logits[0, 2, 2] = logits[1, 3, 0] = 1.0
    boxes = torch.tensor([[NEAR, FAR, HALF, BOX], [BOX, BOX, BOX, BOX]])
    none = NormalizedTargets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    targets = [NormalizedTargets(torch.tensor([1, 0]), torch.tensor([BOX, [0.8, 0.8, 0.1, 0.1]])), none]
    quality = measure_selection(logits, boxes, targets)
    assert quality == SelectionQuality(selected=8, confident=4, confident_and_fitting=1)
    assert quality.ratios() == (0.5, 0.125)
    assert measure_selection(logits, boxes, targets, iou_threshold=0.4).confident_and_fitting == 2
    assert measure_selection(logits, boxes, targets, score_threshold=0.8).confident == 0
    assert quality + quality == SelectionQuality(16, 8, 2)


def test_nothing_selected() -> None:
    assert SelectionQuality(0, 0, 0).ratios() == (0.0, 0.0)
