"""Losses of boxes that regions and anchors have by option: GIoU, L1, and anchors of several sizes."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import generalized_box_iou_loss

from boxwright.regions.box_branch import BoxPrediction, box_losses
from boxwright.regions.options import BoxOptions, RPNOptions
from boxwright.regions.proposals import RPN, RPNLoss, RPNOutput
from boxwright.regions.sampling import SampledRegions
from boxwright.structures import Targets


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def test_giou_of_regions_is_torchvisions_on_the_same_boxes() -> None:
    boxes = draw(12, 4).abs() * 20
    boxes[:, 2:] += boxes[:, :2] + 5
    labels = torch.arange(12) % 4 - 1
    targets = boxes + draw(12, 4) / 2
    weights = torch.full((12,), 1 / 12, dtype=torch.float64)
    nothing = torch.zeros(12, dtype=torch.int64)
    regions = SampledRegions(boxes, nothing, nothing, labels, targets, weights, nothing.bool())
    deltas = draw(12, 4, 4)
    losses = box_losses(BoxPrediction(draw(12, 4), deltas), regions, 2.0, box_loss="giou")
    (own,) = torch.where(labels >= 0)
    decoded = BoxCoder((10.0, 10.0, 5.0, 5.0)).decode_single(deltas[own, labels[own]], boxes[own])
    expected = generalized_box_iou_loss(decoded, targets[own], reduction="sum") / 12 / 2
    assert set(losses) == {"cross_entropy", "giou"}
    torch.testing.assert_close(losses["giou"], expected, rtol=1e-6, atol=0)


def test_anchors_of_the_first_stage_may_have_several_sizes() -> None:
    rpn = RPN(8, [8, 16], RPNOptions(anchor_scale=4.0, octave_steps=3, whole_pixels=False))
    sides = (rpn.base_anchors[..., 2:] - rpn.base_anchors[..., :2]).prod(-1).sqrt()
    expected = torch.tensor([4.0 * 2 ** (step / 3) for step in range(3)] * 3)
    torch.testing.assert_close(sides, torch.stack((8 * expected, 16 * expected)))
    output = rpn([torch.zeros(1, 8, 4, 6), torch.zeros(1, 8, 2, 3)])
    assert [len(one) for one in output.anchors] == [4 * 6 * 9, 2 * 3 * 9]


def test_the_first_stage_may_have_l1() -> None:
    anchors, targets = (
        torch.tensor([[0.0, 0, 16, 16]]),
        [Targets(torch.tensor([0]), torch.tensor([[0.0, 0, 16, 16]]), (16, 16))],
    )
    output = RPNOutput((torch.zeros(1, 1),), (torch.tensor([[[0.05, -0.05, 0.0, 2.0]]]),), (anchors,))
    assert RPNLoss(beta=0.0)(output, targets, 1.0)["rpn_box"].item() == pytest.approx(2.1)
    # Below a ninth, 9 / 2 of the square; above it, less half a ninth.
    expected = 2 * 4.5 * 0.05**2 + 2.0 - 1 / 18
    assert RPNLoss()(output, targets, 1.0)["rpn_box"].item() == pytest.approx(expected)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="octave_steps"):
        RPNOptions(octave_steps=0)
    with pytest.raises(ValueError, match="box_beta"):
        RPNOptions(box_beta=-1.0)
    with pytest.raises(ValueError, match="box_weight"):
        BoxOptions(box_weight=-1.0)
