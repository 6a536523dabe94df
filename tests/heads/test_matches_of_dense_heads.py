"""Objects that each dense head is trained on: those that no anchor fits, ties, and the center of a box by level."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from boxwright.contracts import AnchorHead
from boxwright.dense import AnchorOptions, match_adaptively
from boxwright.heads.atss import ATSS
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


ONE_ANCHOR = AnchorOptions(scale=8.0, octave_steps=1, aspect_ratios=(1.0,), whole_pixels=False)


@pytest.mark.parametrize(
    "head",
    [
        ATSS(SPEC, 2, num_convs=0),
        RetinaNet(SPEC, 2, num_convs=0, anchors=ONE_ANCHOR, atss_top_k=9),
        FCOS(SPEC, 2, num_convs=0, point_offset=0.0, atss_top_k=9),
    ],
)
def test_atss_is_the_same_in_every_head(head: ATSS) -> None:
    """Anchors of eight strides around the corner of each cell; FCOS's are the squares around its points."""
    boxes = torch.tensor([[20.3, 11.0, 97.0, 80.9], [61.1, 50.2, 99.8, 91.3], NEEDLE[0].tolist()])
    matched = head.match(head.anchors(SHAPES), boxes)
    assert torch.equal(matched, ATSS(SPEC, 2, num_convs=0).match(ATSS(SPEC, 2).anchors(SHAPES), boxes))
    assert set(matched.tolist()) == {-1, 0, 1}
    if isinstance(head, AnchorHead):
        assert head.anchor_fits(boxes, (128, 192)) is None


def test_objects_set_the_least_iou_of_their_anchors() -> None:
    """IoU of the five nearest: 0.6, 0.6 and three times 3 / 13; mean 0.378 and standard deviation 0.202 make 0.581."""
    anchors = [torch.tensor([[8.0 * x - 8, 8.0 * y - 8, 8.0 * x + 8, 8.0 * y + 8] for y in range(4) for x in range(4)])]
    left, right = [4.0, 0.0, 20.0, 16.0], [8.0, 0.0, 24.0, 16.0]

    def match(*boxes: list[float]) -> dict[int, int]:
        matched = match_adaptively(anchors, torch.tensor(boxes).view(-1, 4), top_k=5).tolist()
        return {anchor: index for anchor, index in enumerate(matched) if index >= 0}

    assert match(left) == {5: 0, 6: 0}
    # 1 and four times 1 / 3; mean 0.467 and standard deviation 0.298 make 0.765.
    assert match(right) == {6: 0}
    assert match(left, right) == {5: 0, 6: 1}
    assert match([7.0, 9.0, 9.0, 11.0]) == match() == {}


def test_a_single_candidate_is_matched() -> None:
    assert match_adaptively([torch.tensor([[0.0, 0, 8, 8]])], torch.tensor([[1.0, 1, 9, 9]])).tolist() == [0]


@pytest.mark.parametrize(("head", "option"), [(RetinaNet, "atss_top_k"), (FCOS, "atss_top_k"), (ATSS, "top_k")])
def test_options_that_make_no_sense_are_refused(head: Any, option: str) -> None:
    with pytest.raises(ValueError, match=option):
        head(SPEC, 2, num_convs=0, **{option: -1})
