"""Detections of RT-DETR's head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boxwright.heads.rtdetr import RTDETR
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.queries.refined_queries import RefinedOutput
from boxwright.structures import Level, Spec

SPEC: Spec = {"c5": Level(10, 32)}


def craft_output(logits: Tensor, boxes: Tensor, height: int, width: int) -> RefinedOutput:
    none = logits[None, :, :0], boxes[None, :, :0]
    sizes = torch.tensor([[float(height), float(width)]])
    return RefinedOutput(logits[None], boxes[None], sizes, logits, boxes, *none, None)


def test_detections_are_the_best_pairs_of_query_and_class() -> None:
    head = RTDETR(SPEC, 2, max_detections=3)
    logits = torch.tensor([[[-1.0, 2.0], [1.0, 0.0], [-9.0, -8.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1]]])
    decoded = head.decode(craft_output(logits, boxes, 100, 300))
    assert decoded.labels.tolist() == [[1, 0, 1]]
    assert decoded.valid.all()
    torch.testing.assert_close(decoded.scores[0], torch.tensor([2.0, 1.0, 0.0]).sigmoid())
    expected = torch.tensor([[120.0, 30.0, 180.0, 70.0], [60.0, 45.0, 90.0, 55.0], [60.0, 45.0, 90.0, 55.0]])
    torch.testing.assert_close(decoded.boxes[0], expected)


def test_ties_keep_their_order() -> None:
    head = RTDETR(SPEC, 3, max_detections=40)
    boxes = torch.rand(1, 300, 4, generator=torch.Generator().manual_seed(0))
    decoded = head.decode(craft_output(torch.zeros(1, 300, 3), boxes, 1000, 1000))
    assert decoded.labels[0].tolist() == ([0, 1, 2] * 14)[:40]
    expected = cxcywh_to_xyxy(boxes[0] * 1000).repeat_interleave(3, 0)[:40]
    torch.testing.assert_close(decoded.boxes[0], expected, rtol=0, atol=1e-3)


def test_each_image_has_its_own_size() -> None:
    head = RTDETR(SPEC, 1)
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 1.0]], [[0.5, 0.5, 0.5, 1.0]]])
    output = craft_output(torch.zeros(2, 1, 1), boxes, 1, 1)
    decoded = head.decode(output._replace(valid_sizes=torch.tensor([[10.0, 20.0], [40.0, 8.0]])))
    assert decoded.boxes.tolist() == [[[5, 0, 15, 10]], [[2, 0, 6, 40]]]


@pytest.mark.parametrize("field", ["logits", "boxes_cxcywh_norm"])
def test_an_image_with_predictions_that_are_not_numbers_has_no_other_scores(field: str) -> None:
    head = RTDETR(SPEC, 1)
    output = craft_output(torch.zeros(2, 3, 1), torch.full((2, 3, 4), 0.5), 64, 64)
    getattr(output, field)[0, 1, 2, 0] = torch.nan
    scores = head.decode(output).scores
    assert scores[1].isnan().all()
    assert scores[0].tolist() == [0.5] * 3
