"""Decoding of boxes where images end within a cell."""

from __future__ import annotations

import torch

from boxwright.regions.decode import RegionPrediction, decode_regions
from boxwright.regions.options import DetectionOptions
from boxwright.regions.proposals import Proposals


def test_boxes_without_an_area_within_their_image_are_dropped() -> None:
    row = [[0.0, 0, 10, 10], [90, 0, 110, 60], [102, 0, 110, 60], [101.995, 0, 110, 60], [5, 51, 9, 56], [0, 0, 1, 1]]
    valid = torch.tensor([True, True, True, True, True, False]).repeat(2, 1)
    regions = Proposals(torch.tensor([row, row]), torch.ones(2, 6), valid)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])[:, None].repeat(2, 1, 1)
    prediction = RegionPrediction(regions, scores, torch.zeros(2, 6, 1, 4))
    limits, sizes = torch.tensor([[64.0, 128.0]]), torch.tensor([[50.0, 102.0], [60.0, 120.0]])
    decoded = decode_regions(prediction, limits, sizes, DetectionOptions(nms_threshold=1.0, max_detections=6))
    assert decoded.valid.tolist() == [[True, True] + [False] * 4, [True] * 5 + [False]]
    torch.testing.assert_close(decoded.boxes[:, :5], regions.boxes[:, :5])
    torch.testing.assert_close(decoded.scores[:, :5], scores[:, :5, 0])
    assert not decoded.scores[:, 5].any()
