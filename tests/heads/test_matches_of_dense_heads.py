"""Objects that each dense head is trained on: those that no anchor fits, ties, and the center of a box by level."""

from __future__ import annotations

import pytest
import torch

from boxwright.heads.efficientdet import EfficientDet
from boxwright.heads.fcos import FCOS
from boxwright.heads.retinanet import RetinaNet
from boxwright.ops.boxes import iou
from boxwright.structures import Level, Spec

SPEC: Spec = {"c3": Level(8, 8), "c4": Level(8, 16), "c5": Level(8, 32)}
SHAPES = [(16, 24), (8, 12), (4, 6)]
NEEDLE = torch.tensor([[30.0, 41, 170, 44]])
"""Fifty times as wide as high: no anchor has such a shape."""


@pytest.mark.parametrize("head", [RetinaNet, EfficientDet])
def test_an_object_that_no_anchor_fits_has_the_best_one(head: type[RetinaNet]) -> None:
    made = head(SPEC, 2, num_convs=0)
    anchors = made.anchors(SHAPES)
    overlap = iou(NEEDLE[:, None], torch.cat(anchors))[0]
    assert 0 < overlap.max() < 0.3
    (matched,) = torch.where(made.match(anchors, NEEDLE) == 0)
    assert len(matched)
    assert (overlap[matched] == overlap.max()).all()


def test_of_anchors_that_tie_efficientdet_takes_the_first_and_retinanet_all() -> None:
    """An object in the middle between two cells overlaps the anchors of both alike."""
    tall = torch.tensor([[62.0, 40, 66, 100]])
    counts = {}
    for head in (RetinaNet, EfficientDet):
        made = head(SPEC, 2, num_convs=0)
        anchors = made.anchors(SHAPES)
        overlap = iou(tall[:, None], torch.cat(anchors))[0]
        matched = torch.where(made.match(anchors, tall) == 0)[0].tolist()
        tied = torch.where(overlap == overlap.max())[0].tolist()
        assert overlap.max() < 0.4
        assert len(tied) > 1
        counts[head] = matched == tied[:1], matched == tied
    assert counts == {EfficientDet: (True, False), RetinaNet: (False, True)}


@pytest.mark.parametrize("size", [24.0, 100.0, 170.0])
def test_the_center_of_a_box_is_as_many_strides_wide_on_every_level(size: float) -> None:
    """Points of the level of the box's size, nearer to its middle than 1.5 strides across and down, and no other."""
    head = FCOS(SPEC, 2, num_convs=0)
    left, top = 96.5 - size / 2, 64.5 - size / 2
    box = torch.tensor([[left, top, left + size, top + size]])
    anchors = head.anchors(SHAPES)
    level_of = {24.0: 0, 100.0: 1, 170.0: 2}[size]
    for level, (own, matched) in enumerate(
        zip(anchors, head.match(anchors, box).split([len(one) for one in anchors]), strict=True)
    ):
        points = (own[:, :2] + own[:, 2:]) / 2
        near = ((points - torch.tensor([96.5, 64.5])).abs() < 1.5 * head.strides[level]).all(1)
        farthest = torch.maximum(points - box[0, :2], box[0, 2:] - points).amax(1)
        low, high = [(0, 64), (64, 128), (128, float("inf"))][level]
        assert torch.equal(matched >= 0, near & (farthest >= low) & (farthest <= high))
        if level == level_of:
            assert (matched >= 0).any()
