"""Matching of anchors with objects, against torchvision's Matcher and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from boxwright.ops.anchors import grid_anchors, octave_anchors
from boxwright.ops.box_matching import BACKGROUND, IGNORED, LowQuality, gather_matches, match_by_iou
from boxwright.structures import Targets

OBJECT = torch.tensor([[0.0, 0, 10, 10]])


def strips(*fractions: float) -> Tensor:
    """Anchors within ``OBJECT``, of this IoU with it."""
    return torch.tensor([[0.0, 0, 10, 10 * fraction] for fraction in fractions])


def test_thresholds() -> None:
    matched = match_by_iou(strips(0.39, 0.4, 0.49, 0.5, 0.8), OBJECT)
    assert matched.tolist() == [BACKGROUND, IGNORED, IGNORED, 0, 0]
    matched = match_by_iou(strips(0.2, 0.3, 0.6, 0.7), OBJECT, positive=0.65, negative=0.25)
    assert matched.tolist() == [BACKGROUND, IGNORED, IGNORED, 0]


def test_an_anchor_belongs_to_the_object_that_it_overlaps_most_the_first_of_equals() -> None:
    objects = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 9], [0, 0, 10, 9]])
    assert match_by_iou(strips(1.0, 0.6), objects).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("low_quality", "expected"),
    [("none", [-1, -1, -2, -1, -1]), ("ties", [-1, -1, 0, 1, 1]), ("best", [-1, -1, 0, 1, -1])],
)
def test_objects_that_no_anchor_fits(low_quality: LowQuality, expected: list[int]) -> None:
    objects = torch.cat((OBJECT, torch.tensor([[100.0, 0, 110, 10]])))
    ties = torch.tensor([[100.0, 0, 103, 10], [107, 0, 110, 10]])
    anchors = torch.cat((strips(0.1, 0.3, 0.45), ties))
    assert match_by_iou(anchors, objects, low_quality=low_quality).tolist() == expected


def test_an_anchor_that_is_the_best_of_one_object_and_overlaps_another_more() -> None:
    # The first object's only anchor is mostly on the second.
    objects = torch.tensor([[0.0, 8, 10, 12], [0, 0, 10, 10]])
    anchors = torch.tensor([[0.0, 0, 10, 9]])
    assert match_by_iou(anchors, objects, low_quality="ties").tolist() == [1]
    assert match_by_iou(anchors, objects, low_quality="best").tolist() == [0]
    assert match_by_iou(anchors, objects.flip(0), low_quality="best").tolist() == [0]


@pytest.mark.parametrize("low_quality", ["none", "ties", "best"])
def test_no_object_and_objects_that_overlap_nothing(low_quality: LowQuality) -> None:
    anchors = strips(0.5, 1.0)
    assert match_by_iou(anchors, torch.zeros(0, 4), low_quality=low_quality).tolist() == [BACKGROUND] * 2
    apart = torch.tensor([[50.0, 50, 60, 60], [5, 5, 5, 5]])
    assert match_by_iou(anchors, apart, low_quality=low_quality).tolist() == [BACKGROUND] * 2


@pytest.mark.parametrize("ties", [True, False])
def test_equals_torchvisions(ties: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    base = octave_anchors(32.0, 3, (0.5, 1.0, 2.0), whole_pixels=True)
    anchors = grid_anchors(base, 16, 24, 8)
    corner = torch.rand(12, 2, generator=generator) * 100
    objects = torch.cat((corner, corner + torch.rand(12, 2, generator=generator) * 80 + 4), 1)
    expected = Matcher(0.5, 0.4, allow_low_quality_matches=ties)(box_iou(objects, anchors))
    actual = match_by_iou(anchors, objects, low_quality="ties" if ties else "none")
    assert set(actual.unique().tolist()) >= {BACKGROUND, IGNORED, 0}
    assert (actual == expected).all()


def test_gathered_matches_of_several_images() -> None:
    first = Targets(torch.tensor([5, 6]), torch.tensor([[0.0, 0, 1, 1], [0, 0, 2, 2]]), (8, 8))
    second = Targets(torch.tensor([7]), torch.tensor([[0.0, 0, 3, 3]]), (8, 8))
    matched = torch.tensor([[BACKGROUND, 1, IGNORED], [0, BACKGROUND, 0]])
    actual = gather_matches(matched, [first, second])
    assert actual.image.tolist() == [0, 1, 1]
    assert actual.anchor.tolist() == [1, 0, 2]
    assert actual.boxes[:, 2].tolist() == [2, 3, 3]
    assert actual.labels.tolist() == [[BACKGROUND, 6, BACKGROUND], [7, BACKGROUND, 7]]
