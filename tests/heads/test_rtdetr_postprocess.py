"""What RT-DETR's head makes of its predictions."""

from __future__ import annotations

import torch
from torch import Tensor

from boxwright.heads.rtdetr import RTDETR, RTDETROutput
from boxwright.ops.boxes import cxcywh_to_xyxy
from boxwright.structures import ImageSize, Level, Spec

SPEC: Spec = {"c5": Level(10, 32)}


def crafted(logits: Tensor, boxes: Tensor) -> RTDETROutput:
    none = logits[None, :, :0], boxes[None, :, :0]
    return RTDETROutput(logits[None], boxes[None], logits, boxes, *none, None)


def test_detections_are_the_best_pairs_of_query_and_class() -> None:
    head = RTDETR(SPEC, 2, max_detections=3)
    logits = torch.tensor([[[-1.0, 2.0], [1.0, 0.0], [-9.0, -8.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.5, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1]]])
    (found,) = head.postprocess(crafted(logits, boxes), [ImageSize(100, 300, 64, 64)])
    assert found.labels.tolist() == [1, 0, 1]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 1.0, 0.0]).sigmoid())
    expected = torch.tensor([[120.0, 30.0, 180.0, 70.0], [60.0, 45.0, 90.0, 55.0], [60.0, 45.0, 90.0, 55.0]])
    torch.testing.assert_close(found.boxes, expected)


def test_ties_keep_their_order() -> None:
    head = RTDETR(SPEC, 3, max_detections=40)
    boxes = torch.rand(1, 300, 4, generator=torch.Generator().manual_seed(0))
    (found,) = head.postprocess(crafted(torch.zeros(1, 300, 3), boxes), [ImageSize(1000, 1000, 64, 64)])
    assert found.labels.tolist() == ([0, 1, 2] * 14)[:40]
    expected = cxcywh_to_xyxy(boxes[0] * 1000).clamp(0, 1000).repeat_interleave(3, 0)[:40]
    torch.testing.assert_close(found.boxes, expected, rtol=0, atol=1e-3)


def test_boxes_are_cut_to_the_image() -> None:
    head = RTDETR(SPEC, 1)
    boxes = torch.tensor([[[0.05, 0.5, 0.3, 0.2], [0.9, 0.95, 0.4, 0.4]]])
    (found,) = head.postprocess(crafted(torch.zeros(1, 2, 1), boxes), [ImageSize(50, 200, 64, 64)])
    torch.testing.assert_close(found.boxes, torch.tensor([[0.0, 20.0, 40.0, 30.0], [140.0, 37.5, 200.0, 50.0]]))
