"""Cascade R-CNN: what passes from stage to stage, in training and in prediction, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diverged_head import assert_says_that_it_has_diverged
from torch import Tensor

from boxwright.heads.cascade_rcnn import CascadeRCNN, delta_weights, refined
from boxwright.ops.boxes import iou
from boxwright.regions.assignment import SampledRegions, regions_to_proposals
from boxwright.structures import Features, Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c2": Level(8, 4), "c3": Level(8, 8), "c5": Level(8, 32), "c6": Level(8, 64)}


def small(spec: Spec = SPEC, **options: Any) -> CascadeRCNN:
    """Boxes of fresh stages hardly move; here they do."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": 16, "pre_nms_top_k": (60, 40), "post_nms_top_k": (40, 20), "num_samples": 48}
    head = CascadeRCNN(spec, 3, **(sizes | options))
    with torch.no_grad():
        for branch in head.stages:
            branch.boxes.weight.normal_(std=0.3)
    return head


def maps(spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, at.channels, 128 // at.stride, 128 // at.stride, generator=generator)
        for name, at in spec.items()
    }


def test_deviations_of_later_stages_are_multiplied_by_more() -> None:
    assert [delta_weights(number) for number in range(3)] == [(10.0, 5.0), (20.0, 10.0), (30.0, 15.0)]
    # A box of 40 x 20 shifted by 0.1 of its width, and twice as high; cut to an image 90 high and 65 wide.
    boxes, deltas = torch.tensor([[20.0, 60.0, 60.0, 80.0]]), torch.tensor([[3.0, 0.0, 0.0, 15 * 0.69314718]])
    content = torch.tensor([[90.0, 65.0]])
    torch.testing.assert_close(refined(deltas, boxes, content, 2), torch.tensor([[24.0, 50.0, 64.0, 90.0]]))
    shifted = refined(2 * deltas, boxes, content, 2)
    torch.testing.assert_close(shifted, torch.tensor([[28.0, 30.0, 65.0, 90.0]]))
    assert not refined(deltas.requires_grad_(), boxes, content, 2).requires_grad


def test_an_objects_own_box_is_not_refined() -> None:
    boxes = torch.arange(20.0).view(5, 4)
    wanted = boxes.clone()
    wanted[1] += 1
    regions = SampledRegions(
        boxes,
        images=torch.tensor([0, 0, 0, 2, 2]),
        objects=torch.tensor([0, 1, -1, -1, 0]),
        labels=torch.tensor([2, 1, -1, -1, 0]),
        wanted=wanted,
        shares=torch.ones(5),
    )
    proposals = regions_to_proposals(regions, boxes + 100, 3)
    assert proposals.valid.tolist() == [[True, True], [False, False], [True, False]]
    torch.testing.assert_close(proposals.boxes[0], boxes[1:3] + 100)
    torch.testing.assert_close(proposals.boxes[2, 0], boxes[3] + 100)


def test_each_stage_samples_from_what_the_one_before_made_of_its_regions(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    stages = head(maps(), None, targets).stages
    content = torch.tensor([[128.0, 128.0]])
    for number, (_, regions) in enumerate(stages):
        overlaps = [iou(targets[i].boxes[:, None], regions.boxes[regions.images == i]).amax(0) for i in range(2)]
        assert torch.equal(regions.labels >= 0, torch.cat(overlaps) >= (0.5, 0.6, 0.7)[number])
        for i, target in enumerate(targets):
            own = regions.boxes[regions.images == i]
            assert len(own) <= 48
            # Every object's own box, once.
            assert (own[:, None] == target.boxes).all(-1).sum(0).tolist() == [1] * len(target.boxes)
        if number:
            before, its_regions = stages[number - 1]
            moved = refined(before.deltas[:, 0], its_regions.boxes, content, number - 1)
            sources = torch.cat((moved, *(target.boxes for target in targets)))
            assert (regions.boxes[:, None] == sources).all(-1).any(1).all()
            assert not torch.equal(regions.boxes, its_regions.boxes)
    assert len(stages) == 3


def test_every_stage_draws_its_samples(make_targets: MakeTargets) -> None:
    head, targets = small(num_samples=8), make_targets([3, 1], size=(128, 128))
    for _, regions in head(maps(), None, targets).stages:
        for i in range(2):
            own = regions.images == i
            assert 4 < own.sum() <= 8
            assert (regions.labels[own] >= 0).sum() <= 2


def test_no_gradient_passes_through_boxes(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    losses = head.loss(head(maps(), None, targets), targets)
    assert list(losses)[2:] == [f"{name}_{i}" for i in (1, 2, 3) for name in ("cross_entropy", "smooth_l1")]
    (losses["cross_entropy_3"] + losses["smooth_l1_3"]).backward()
    reached = {name.split(".")[1] for name, x in head.stages.named_parameters(prefix="stages") if x.grad is not None}
    assert reached == {"2"}
    assert head.first_stage.rpn.logits.weight.grad is None


def test_losses_of_stages_are_weighted(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1], size=(128, 128))
    losses = []
    for weights in ((1.0, 1.0, 1.0), (1.0, 0.5, 0.25)):
        head = small(stage_weights=weights)
        torch.manual_seed(1)
        losses.append(head.loss(head(maps(), None, targets), targets))
    plain, weighted = losses
    for number, weight in enumerate((1.0, 0.5, 0.25)):
        for name in ("cross_entropy", "smooth_l1"):
            key = f"{name}_{number + 1}"
            torch.testing.assert_close(weighted[key], weight * plain[key])


@torch.no_grad()
def test_a_prediction_has_the_last_boxes_and_mean_scores() -> None:
    head, seen = small(score_threshold=0.0, nms_threshold=1.0, max_detections=1000).eval(), list[Tensor]()
    for branch in head.stages:
        branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    output = head(maps())
    content = torch.tensor([[128.0, 128.0]])
    boxes = seen[0]
    for number, (said, _) in enumerate(output.stages):
        torch.testing.assert_close(boxes, seen[number])
        boxes = refined(said.deltas[:, 0], boxes, content, number)
    scores = torch.stack([said.logits.softmax(-1)[:, :-1] for said, _ in output.stages]).mean(0).unflatten(0, (2, -1))
    best = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    count = int(output.found.valid[0].sum())
    assert count == 60
    torch.testing.assert_close(output.found.scores[0], best.values[0])
    torch.testing.assert_close(output.found.labels[0], best.indices[0] % 3)
    torch.testing.assert_close(output.found.boxes[0], boxes.unflatten(0, (2, -1))[0, best.indices[0] // 3])


def test_regions_of_every_stage_lie_on_the_image_not_on_its_padding(make_targets: MakeTargets) -> None:
    mask = torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[0, 100:] = mask[0, :, 80:] = True
    targets = [*make_targets([3], size=(100, 80)), *make_targets([1], size=(128, 128))]
    for _, regions in small()(maps(), mask, targets).stages:
        assert (regions.boxes[regions.images == 0] <= torch.tensor([80, 100, 80, 100])).all()
        assert regions.boxes[regions.images == 1].max() > 100


def test_auxiliary_levels_are_left_out() -> None:
    raw = {"raw2": Level(5, 4, auxiliary=True)}
    head = small(raw | SPEC).eval()
    assert head.first_stage.rpn.strides == [4, 8, 32, 64]
    assert head.stages[0].pooling.strides == [4, 8, 32]
    torch.testing.assert_close(head(maps(raw) | maps()).found.scores, small().eval()(maps()).found.scores)


@pytest.mark.parametrize(
    "options",
    [
        {"roi_extractor": "adaptive", "fusion": "sum"},
        {"roi_extractor": "soft", "box_head": "four_conv"},
        {"stage_ious": (0.5,), "stage_weights": (1.0,), "smooth_l1_beta": 0.0},
    ],
    ids=str,
)
def test_every_choice_trains_every_parameter(options: dict[str, Any], make_targets: MakeTargets) -> None:
    head, targets = small(**options), make_targets([2, 0], size=(128, 128))
    losses = head.loss(head(maps(), None, targets), targets)
    assert len(losses) == 2 + 2 * len(head.stages)
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_needs_targets_in_forward(make_targets: MakeTargets) -> None:
    head = small()
    with pytest.raises(ValueError, match="the loss needs an output that was made with the targets"):
        head.loss(head(maps()), make_targets([1, 1], size=(128, 128)))


@pytest.mark.parametrize(
    "broken",
    [
        "first_stage.rpn.logits.weight",
        "first_stage.rpn.deltas.bias",
        "stages.0.classes.weight",
        "stages.1.boxes.bias",
        "stages.2.boxes.bias",
    ],
)
def test_a_model_that_has_diverged_says_so_instead_of_finding_nothing(broken: str) -> None:
    assert_says_that_it_has_diverged(small(), maps(), broken)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_ious": ()}, "stage_weights has one number for each of stage_ious, not 3 for 0"),
        ({"stage_ious": (0.5, 0.6)}, "stage_weights has one number for each of stage_ious, not 3 for 2"),
        ({"stage_ious": (0.5, 1.2, 0.7)}, r"stage_ious\[1\] is in \(0, 1\], not 1.2"),
        ({"stage_weights": (1.0, -0.5, 0.25)}, "stage_weights and smooth_l1_beta are at least 0, not"),
        ({"smooth_l1_beta": -1.0}, "stage_weights and smooth_l1_beta are at least 0, not"),
        ({"num_samples": 0}, "num_samples is at least 1, not 0"),
        ({"score_threshold": 2.0}, r"score_threshold is in \[0, 1\], not 2.0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
