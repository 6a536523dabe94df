"""Decoding of regions: where images end within a cell, at thresholds, and where regions fill up."""

from __future__ import annotations

import torch

from boxwright.ops.box_deltas import FAST_RCNN_WEIGHTS, encode_deltas
from boxwright.regions.decode import RegionPrediction, decode_regions
from boxwright.regions.options import DetectionOptions
from boxwright.regions.proposals import Proposals
from boxwright.structures import Decoded

LIMITS = torch.tensor([[64.0, 128.0]])


def decode(rows: list[list[float]], scores: list[float], valid: list[bool] | None = None, **options: float) -> Decoded:
    """Decode regions of one image and one class, none of which suppresses another."""
    regions = Proposals(
        torch.tensor([rows]),
        torch.ones(1, len(rows)),
        torch.tensor([valid if valid is not None else [True] * len(rows)]),
    )
    prediction = RegionPrediction(regions, torch.tensor(scores)[None, :, None], torch.zeros(1, len(rows), 1, 4))
    detection = DetectionOptions(**{"nms_threshold": 1.0, "max_detections": len(rows), **options})
    return decode_regions(prediction, LIMITS, LIMITS, detection)


def test_boxes_without_an_area_within_their_image_are_dropped() -> None:
    row = [[0.0, 0, 10, 10], [90, 0, 110, 60], [102, 0, 110, 60], [101.995, 0, 110, 60], [5, 51, 9, 56], [0, 0, 1, 1]]
    valid = torch.tensor([True, True, True, True, True, False]).repeat(2, 1)
    regions = Proposals(torch.tensor([row, row]), torch.ones(2, 6), valid)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])[:, None].repeat(2, 1, 1)
    prediction = RegionPrediction(regions, scores, torch.zeros(2, 6, 1, 4))
    sizes = torch.tensor([[50.0, 102.0], [60.0, 120.0]])
    decoded = decode_regions(prediction, LIMITS, sizes, DetectionOptions(nms_threshold=1.0, max_detections=6))
    assert decoded.valid.tolist() == [[True, True] + [False] * 4, [True] * 5 + [False]]
    torch.testing.assert_close(decoded.boxes[:, :5], regions.boxes[:, :5])
    torch.testing.assert_close(decoded.scores[:, :5], scores[:, :5, 0])
    assert not decoded.scores[:, 5].any()


def test_scores_have_to_exceed_the_threshold() -> None:
    decoded = decode([[0.0, 0, 10, 10]] * 3, [0.5, 0.25, 0.125], score_threshold=0.25)
    assert decoded.valid.tolist() == [[True, False, False]]


def test_regions_that_fill_up_are_never_detected() -> None:
    """Not even with a threshold of 0, and however sure the head is of them."""
    rows = [[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    decoded = decode(rows, [0.5, 0.9, 0.25], [True, False, True], score_threshold=0.0)
    assert decoded.valid.tolist() == [[True, True, False]]
    assert decoded.boxes[0, :2].tolist() == [rows[0], rows[2]]
    assert decoded.scores.tolist() == [[0.5, 0.25, 0.0]]


def test_detections_are_a_hundredth_of_a_pixel_wide_and_high_or_more() -> None:
    """As in torchvision: small objects stay, and what has no area does not."""
    rows = [[0.0, 0, 0.5, 0.5], [20, 0, 20.005, 10], [40, 0, 50, 0.005], [60, 5, 60.02, 5.02], [80, 5, 80, 5]]
    decoded = decode(rows, [0.9, 0.8, 0.7, 0.6, 0.5])
    assert decoded.valid.tolist() == [[True, True, False, False, False]]
    torch.testing.assert_close(decoded.boxes[0, :2], torch.tensor([rows[0], rows[3]]))


def test_the_box_of_a_detection_is_that_of_its_class() -> None:
    """Each class of a region has its own, and regions before it have as many."""
    regions = torch.tensor([[[0.0, 0, 20, 20], [60.0, 0, 80, 20]]])
    boxes = torch.tensor([[[[0.0, 0, 10, 10], [5, 5, 20, 20]], [[60.0, 0, 70, 10], [65, 5, 80, 20]]]])
    deltas = encode_deltas(boxes, regions[:, :, None].expand_as(boxes), weights=FAST_RCNN_WEIGHTS)
    scores = torch.tensor([[[0.9, 0.6], [0.5, 0.7]]])
    prediction = RegionPrediction(Proposals(regions, torch.ones(1, 2), torch.ones(1, 2) > 0), scores, deltas)
    decoded = decode_regions(prediction, LIMITS, LIMITS, DetectionOptions(max_detections=4))
    assert decoded.labels.tolist() == [[0, 1, 1, 0]]
    torch.testing.assert_close(decoded.boxes[0], boxes[0].flatten(0, 1)[[0, 3, 1, 2]], rtol=0, atol=1e-4)
