"""Cascade R-CNN: what passes from stage to stage, in training and in prediction, and the options that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diverged_head import assert_divergence_is_visible
from small_two_stage import SPEC, make_maps, small_head
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, clip_boxes_to_image

from boxwright.contracts import LimitedHead
from boxwright.heads.cascade_rcnn import CascadeRCNN
from boxwright.ops.boxes import iou
from boxwright.regions.box_branch import BoxPrediction
from boxwright.regions.cascade import stage_delta_weights
from boxwright.regions.decode import refine_boxes
from boxwright.regions.proposals import regions_to_proposals
from boxwright.regions.sampling import SampledRegions
from boxwright.regions.two_stage import TwoStageOutput
from boxwright.structures import Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

WEIGHTS = stage_delta_weights(3, None)
WIDE = torch.tensor([[128.0, 128.0]])


def small(spec: Spec = SPEC, **options: Any) -> CascadeRCNN:
    """Boxes of fresh stages hardly move; here they do."""
    sizes = {"rpn": {"pre_nms_top_k": (60, 40), "post_nms_top_k": (40, 20)}, "roi": {"num_samples": 48}}
    groups = {name: group | options.pop(name, {}) for name, group in sizes.items()}
    head: CascadeRCNN = small_head(CascadeRCNN, spec, **groups, **options)
    with torch.no_grad():
        for branch in head.stages:
            branch.boxes.weight.normal_(std=0.3)
    return head


def test_deltas_of_later_stages_are_multiplied_by_more() -> None:
    assert WEIGHTS == [(10.0, 5.0), (20.0, 10.0), (30.0, 15.0)]
    # A box of 40 x 20 shifted by 0.1 of its width, and twice as high; cut to an image 90 high and 65 wide.
    boxes, deltas = torch.tensor([[20.0, 60.0, 60.0, 80.0]]), torch.tensor([[3.0, 0.0, 0.0, 15 * 0.69314718]])
    sizes, weights = torch.tensor([[90.0, 65.0]]), WEIGHTS[2]
    torch.testing.assert_close(refine_boxes(deltas, boxes, sizes, weights), torch.tensor([[24.0, 50.0, 64.0, 90.0]]))
    shifted = refine_boxes(2 * deltas, boxes, sizes, weights)
    torch.testing.assert_close(shifted, torch.tensor([[28.0, 30.0, 65.0, 90.0]]))
    assert not refine_boxes(deltas.requires_grad_(), boxes, sizes, weights).requires_grad


@pytest.mark.usefixtures("unchecked")
def test_deltas_of_mmdetections_stages() -> None:
    """Its deltas are multiplied by standard deviations where ours are divided by weights."""
    stds = ((0.1, 0.2), (0.05, 0.1), (0.033, 0.067))
    weights = stage_delta_weights(3, stds)
    assert weights == [pytest.approx((1 / center, 1 / size)) for center, size in stds]
    boxes, deltas = torch.tensor([[20.0, 60.0, 60.0, 80.0]]), torch.tensor([[3.0, -2.0, 0.5, 1.5]])
    # Center (40, 70) moved by 3 * 0.033 * 40 and -2 * 0.033 * 20; sides 40 e^(0.5 * 0.067) and 20 e^(1.5 * 0.067).
    expected = torch.tensor([[23.278651, 57.622756, 64.641350, 79.737244]])
    moved = refine_boxes(deltas, boxes, WIDE, weights[-1])
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)
    assert small(stage_stds=stds).delta_weights == weights
    for wrong in (((0.1, 0.2),), ((0.1, 0.2), (0.1, 0.0), (0.1, 0.1))):
        with pytest.raises(ValueError, match="stage_stds are 3 pairs of positive numbers"):
            small(stage_stds=wrong)
    with pytest.raises(ValueError, match="averages is one of"):
        small(averages="boxes")


def test_an_objects_own_box_is_not_refined_but_a_proposal_that_equals_it_is() -> None:
    boxes = torch.arange(20.0).view(5, 4)
    regions = SampledRegions(
        boxes,
        images=torch.tensor([0, 0, 0, 2, 2]),
        objects=torch.tensor([0, 0, -1, -1, 0]),
        labels=torch.tensor([2, 2, -1, -1, 0]),
        target_boxes=boxes.clone(),
        weights=torch.ones(5),
        is_ground_truth=torch.tensor([True, False, False, False, True]),
    )
    proposals = regions_to_proposals(regions, boxes + 100, 3)
    assert proposals.valid.tolist() == [[True, True], [False, False], [True, False]]
    torch.testing.assert_close(proposals.boxes[0], boxes[1:3] + 100)
    torch.testing.assert_close(proposals.boxes[2, 0], boxes[3] + 100)


def losses_as_mmdetection(
    head: CascadeRCNN,
    output: TwoStageOutput,
    proposals: list[Tensor],
    targets: list[Targets],
    *,
    by_value: bool = False,
) -> tuple[dict[str, Tensor], list[int]]:
    """CascadeRoIHead.loss of mmdetection 3.3.0 written out, for images whose regions are all sampled.

    RandomSampler puts the objects' boxes before the proposals, with a flag for each (``gt_flags``), and
    BBoxHead.refine_bboxes drops the positives that have it (``pos_is_gts``). ``by_value`` instead drops each positive
    whose box equals its object's.

    Returns:
        Losses of the stages, and numbers of their positives without the objects' own boxes.
    """
    terms, counts = dict[str, Tensor](), list[int]()
    for stage, (branch, least, weight) in enumerate(zip(head.stages, (0.5, 0.6, 0.7), (1.0, 0.5, 0.25), strict=True)):
        factors = torch.tensor([10.0, 10.0, 5.0, 5.0]) * (stage + 1)
        entropy, distance, positives = torch.zeros(()), torch.zeros(()), 0
        for image, target in enumerate(targets):
            gt_flags = torch.arange(len(target.boxes) + len(proposals[image])) < len(target.boxes)
            priors = torch.cat((target.boxes, proposals[image]))
            overlap, objects = box_iou(priors, target.boxes).max(1)
            positive = overlap >= least
            logits, deltas = branch(output.maps, priors, torch.full_like(objects, image))
            classes = torch.where(positive, target.labels[objects], 3)
            entropy = entropy + F.cross_entropy(logits, classes) / len(targets)
            coder = BoxCoder(tuple(factors.tolist()))
            target_deltas = coder.encode_single(target.boxes[objects], priors)
            off = F.smooth_l1_loss(deltas[:, 0], target_deltas, reduction="none", beta=1.0).sum(1)
            distance = distance + off[positive].sum() / len(priors) / len(targets)
            dropped = gt_flags & positive
            if by_value:
                dropped = positive & (priors == target.boxes[objects]).all(1)
            positives += int((positive & ~gt_flags).sum())
            moved = coder.decode_single(deltas[:, 0], priors).detach()
            proposals[image] = clip_boxes_to_image(moved, target.size)[~dropped]
        terms |= {f"cross_entropy_{stage + 1}": weight * entropy, f"smooth_l1_{stage + 1}": weight * distance}
        counts.append(positives)
    return terms, counts


@torch.no_grad()
def test_stages_of_images_filled_by_one_object_are_mmdetections() -> None:
    """Proposals that were cut to the image equal the object's box, and are refined all the same."""
    rpn = {"nms_threshold": 1.0, "pre_nms_top_k": (200, 40), "post_nms_top_k": (120, 20)}
    head, sizes = small(roi={"num_samples": 2000}, rpn=rpn), [(128, 128), (96, 112)]
    # One anchor of each cell grows far beyond the image.
    head.first_stage.rpn.deltas.bias.view(-1, 4)[0, 2:] = 4.0
    mask = torch.ones(2, 128, 128, dtype=torch.bool)
    targets = []
    for image, (height, width) in enumerate(sizes):
        mask[image, :height, :width] = False
        targets.append(Targets(torch.tensor([image]), torch.tensor([[0.0, 0, width, height]]), (height, width)))
    output = head(make_maps(), mask, targets)
    proposals = head.first_stage.propose(output.rpn, output.box_limits, training=True)
    each = [boxes[valid] for boxes, valid in zip(proposals.boxes, proposals.valid, strict=True)]
    cut = sum(int((boxes == target.boxes).all(1).sum()) for boxes, target in zip(each, targets, strict=True))
    assert cut > 15
    losses = head.loss(output, targets)
    expected, counts = losses_as_mmdetection(head, output, list(each), targets)
    assert set(expected) == {name for name in losses if name[-1].isdigit()}
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-6)
    for (_, regions), count in zip(output.stages, counts, strict=True):
        assert int(((regions.labels >= 0) & ~regions.is_ground_truth).sum()) == count
        assert regions.is_ground_truth.sum() == len(targets)
    by_value, fewer = losses_as_mmdetection(head, output, list(each), targets, by_value=True)
    assert fewer[1] < counts[1] - 5
    assert abs(by_value["smooth_l1_2"] / losses["smooth_l1_2"] - 1) > 0.02


def test_each_stage_samples_from_what_the_one_before_made_of_its_regions(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    stages = head(make_maps(), None, targets).stages
    for stage, (_, regions) in enumerate(stages):
        overlaps = [iou(targets[i].boxes[:, None], regions.boxes[regions.images == i]).amax(0) for i in range(2)]
        assert torch.equal(regions.labels >= 0, torch.cat(overlaps) >= (0.5, 0.6, 0.7)[stage])
        for i, target in enumerate(targets):
            own = regions.boxes[regions.images == i]
            assert len(own) <= 48
            # Every object's own box, once.
            assert (own[:, None] == target.boxes).all(-1).sum(0).tolist() == [1] * len(target.boxes)
        if stage:
            before, its_regions = stages[stage - 1]
            moved = refine_boxes(before.deltas[:, 0], its_regions.boxes, WIDE, WEIGHTS[stage - 1])
            sources = torch.cat((moved, *(target.boxes for target in targets)))
            assert (regions.boxes[:, None] == sources).all(-1).any(1).all()
            assert not torch.equal(regions.boxes, its_regions.boxes)
    assert len(stages) == 3


def test_every_stage_draws_its_samples(make_targets: MakeTargets) -> None:
    head, targets = small(roi={"num_samples": 8}), make_targets([3, 1], size=(128, 128))
    for _, regions in head(make_maps(), None, targets).stages:
        for i in range(2):
            own = regions.images == i
            assert 4 < own.sum() <= 8
            assert (regions.labels[own] >= 0).sum() <= 2


def test_no_gradient_passes_through_boxes(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    losses = head.loss(head(make_maps(), None, targets), targets)
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
        losses.append(head.loss(head(make_maps(), None, targets), targets))
    plain, weighted = losses
    for number, weight in enumerate((1.0, 0.5, 0.25)):
        for name in ("cross_entropy", "smooth_l1"):
            key = f"{name}_{number + 1}"
            torch.testing.assert_close(weighted[key], weight * plain[key])


@torch.no_grad()
def test_a_prediction_has_the_last_boxes_and_mean_scores() -> None:
    head = small(detection={"score_threshold": 0.0, "nms_threshold": 1.0, "max_detections": 1000}).eval()
    seen, predicted = list[Tensor](), list[BoxPrediction]()
    for branch in head.stages:
        branch.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
        branch.register_forward_hook(lambda *results: predicted.append(results[-1]))
    decoded = head.decode(head(make_maps()))
    boxes = seen[0]
    for stage, prediction in enumerate(predicted):
        torch.testing.assert_close(boxes, seen[stage])
        boxes = refine_boxes(prediction.deltas[:, 0], boxes, WIDE, WEIGHTS[stage])
    scores = torch.stack([one.logits.softmax(-1)[:, :-1] for one in predicted]).mean(0).unflatten(0, (2, -1))
    best = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    assert int(decoded.valid[0].sum()) == 60
    torch.testing.assert_close(decoded.scores[0], best.values[0])
    torch.testing.assert_close(decoded.labels[0], best.indices[0] % 3)
    torch.testing.assert_close(decoded.boxes[0], boxes.unflatten(0, (2, -1))[0, best.indices[0] // 3])


@torch.no_grad()
def test_detections_of_an_output_with_targets_are_the_same(make_targets: MakeTargets) -> None:
    head = small(detection={"score_threshold": 0.0}).eval()
    predicted = head.decode(head(make_maps()))
    trained = head.decode(head(make_maps(), None, make_targets([3, 1], size=(128, 128))))
    assert predicted.valid.any(1).all()
    for ours, expected in zip(trained[:4], predicted[:4], strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_precisions_predict(dtype: torch.dtype) -> None:
    head = small(detection={"score_threshold": 0.0}).eval().to(dtype)
    decoded = head.decode(head({name: x.to(dtype) for name, x in make_maps().items()}))
    assert decoded.scores.dtype == decoded.boxes.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert decoded.scores.isfinite().all()


def test_limits_can_be_raised() -> None:
    head = small()
    assert isinstance(head, LimitedHead)
    head.raise_limits(150)
    assert [limit for _, limit, _ in head.object_limits()] == [150, 150, 150]


def test_regions_of_every_stage_lie_on_the_image_not_on_its_padding(make_targets: MakeTargets) -> None:
    mask = torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[0, 100:] = mask[0, :, 80:] = True
    targets = [*make_targets([3], size=(100, 80)), *make_targets([1], size=(128, 128))]
    for _, regions in small()(make_maps(), mask, targets).stages:
        assert (regions.boxes[regions.images == 0] <= torch.tensor([80, 100, 80, 100])).all()
        assert regions.boxes[regions.images == 1].max() > 100


def test_auxiliary_levels_are_left_out() -> None:
    raw = {"raw2": Level(5, 4, auxiliary=True)}
    head = small(raw | SPEC).eval()
    assert head.first_stage.rpn.strides == [4, 8, 32, 64]
    assert head.stages[0].pooling.strides == [4, 8, 32]
    expected = small().eval()
    scores = head.decode(head(make_maps(raw) | make_maps())).scores
    torch.testing.assert_close(scores, expected.decode(expected(make_maps())).scores)


@pytest.mark.parametrize(
    "options",
    [
        {"roi": {"extractor": "adaptive", "fusion": "sum"}},
        {"roi": {"extractor": "soft"}, "boxes": {"head": "four_conv"}},
        {"stage_ious": (0.5,), "stage_weights": (1.0,), "smooth_l1_beta": 0.0},
    ],
    ids=str,
)
def test_every_choice_trains_every_parameter(options: dict[str, Any], make_targets: MakeTargets) -> None:
    head, targets = small(**options), make_targets([2, 0], size=(128, 128))
    losses = head.loss(head(make_maps(), None, targets), targets)
    assert len(losses) == 2 + 2 * len(head.stages)
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_the_loss_needs_targets_in_forward(make_targets: MakeTargets) -> None:
    head = small()
    with pytest.raises(ValueError, match="the loss needs an output that was made with the targets"):
        head.loss(head(make_maps()), make_targets([1, 1], size=(128, 128)))


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
def test_divergence_is_visible(broken: str) -> None:
    assert_divergence_is_visible(small(), make_maps(), broken)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stage_ious": ()}, "stage_weights has one number for each of stage_ious, not 3 for 0"),
        ({"stage_ious": (0.5, 0.6)}, "stage_weights has one number for each of stage_ious, not 3 for 2"),
        ({"stage_ious": (0.5, 1.2, 0.7)}, r"stage_ious\[1\] is in \(0, 1\], not 1.2"),
        ({"stage_weights": (1.0, -0.5, 0.25)}, "stage_weights and smooth_l1_beta are at least 0, not"),
        ({"smooth_l1_beta": -1.0}, "stage_weights and smooth_l1_beta are at least 0, not"),
        ({"roi": {"num_samples": 0}}, "num_samples is at least 1, not 0"),
        ({"detection": {"score_threshold": 2.0}}, r"score_threshold is in \[0, 1\], not 2.0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
