"""The selection of proposals, against torchvision's."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from boxwright.ops.anchors import grid_anchors, octave_anchors
from boxwright.regions.proposals import Proposals, RPNOutput, select_proposals

SIZES = ((16, 24), (8, 12))
STRIDES = (8, 16)


def predictions(batch: int = 2) -> RPNOutput:
    generator = torch.Generator().manual_seed(0)
    anchors = [
        grid_anchors(octave_anchors(4.0 * stride, 1, (0.5, 1.0, 2.0)), *size, stride)
        for size, stride in zip(SIZES, STRIDES, strict=True)
    ]
    logits = [torch.randn(batch, len(own), generator=generator) for own in anchors]
    deltas = [torch.randn(batch, len(own), 4, generator=generator) * 0.5 for own in anchors]
    return RPNOutput(tuple(logits), tuple(deltas), tuple(anchors))


def select(box_limits: list[list[float]], **options: float) -> Proposals:
    settings = {"pre_nms_top_k": 200, "post_nms_top_k": 60, "nms_threshold": 0.5} | options
    return select_proposals(predictions(), torch.tensor(box_limits), **settings).proposals  # type: ignore[arg-type]


@pytest.mark.parametrize("post_nms_top_k", [60, 1000])
def test_equals_torchvisions(post_nms_top_k: int) -> None:
    theirs = RegionProposalNetwork(
        AnchorGenerator(((32,), (64,))), RPNHead(4, 3), 0.7, 0.3, 256, 0.5,
        {"training": 200, "testing": 200}, {"training": post_nms_top_k, "testing": post_nms_top_k}, 0.5,
    ).eval()  # fmt: skip
    logits, deltas, anchors = predictions()
    boxes = theirs.box_coder.decode(torch.cat(deltas, 1).flatten(0, 1), [torch.cat(anchors)] * 2).view(2, -1, 4)
    box_limits = [[128.0, 192.0], [100.0, 150.0]]
    expected, scores = theirs.filter_proposals(
        boxes, torch.cat(logits, 1), [tuple(size) for size in box_limits], [len(own) for own in anchors]
    )
    proposals = select(box_limits, post_nms_top_k=post_nms_top_k)
    for image in range(2):
        valid = proposals.valid[image]
        count = int(valid.sum())
        assert count == len(expected[image]) > 50
        assert valid[:count].all(), "what fills up comes last"
        torch.testing.assert_close(proposals.boxes[image, :count], expected[image], rtol=0, atol=1e-3)
        torch.testing.assert_close(proposals.scores[image, :count], scores[image], rtol=0, atol=1e-6)


def test_equally_many_of_every_image_whatever_nms_keeps() -> None:
    proposals = select([[128.0, 192.0]], post_nms_top_k=400, nms_threshold=0.1)
    assert proposals.boxes.shape == (2, 400, 4)
    assert proposals.valid.sum(1).max() < 200


def test_boxes_lie_on_the_image_and_small_ones_are_dropped() -> None:
    proposals = select([[40.0, 64.0], [128.0, 192.0]], min_side=5.0)
    for image, (height, width) in enumerate([(40, 64), (128, 192)]):
        boxes = proposals.boxes[image][proposals.valid[image]]
        assert (boxes[:, 2:] - boxes[:, :2] >= 5).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
    assert proposals.valid[0].sum() < proposals.valid[1].sum()


def test_nothing_passes_a_gradient() -> None:
    logits, deltas, anchors = predictions()
    trained = RPNOutput(tuple(x.requires_grad_() for x in logits), tuple(x.requires_grad_() for x in deltas), anchors)
    size = torch.tensor([[128.0, 192.0]])
    proposals = select_proposals(trained, size, pre_nms_top_k=10, post_nms_top_k=5, nms_threshold=0.7).proposals
    assert not proposals.boxes.requires_grad
    assert not proposals.scores.requires_grad
