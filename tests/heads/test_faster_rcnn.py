"""Faster R-CNN: its levels, its outputs and detections, its limits, and the options that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diverged_head import assert_divergence_is_visible
from small_two_stage import SPEC, make_maps, small_head
from torch import Tensor

from boxwright.contracts import LimitedHead, WorstCaseHead
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.structures import Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]


def small(spec: Spec = SPEC, **options: Any) -> FasterRCNN:
    head: FasterRCNN = small_head(FasterRCNN, spec, **options)
    return head


def test_the_coarsest_level_is_for_proposals_alone() -> None:
    head = small().eval()
    assert head.first_stage.rpn.strides == [4, 8, 32, 64]
    assert head.boxes.pooling.strides == [4, 8, 32]
    assert small(roi={"coarsest_stride": 8}).boxes.pooling.strides == [4, 8]
    assert small({"c6": Level(8, 64)}).boxes.pooling.strides == [64]


@pytest.mark.parametrize(
    ("strides", "pooled"),
    [
        ((4, 8, 16, 32, 64), [4, 8, 16, 32]),
        ((4, 8, 16, 16, 32), [4, 8, 16, 16]),
        ((4, 8, 16, 16), [4, 8, 16, 16]),
        ((8, 16, 16, 32, 64), [8, 16, 16]),
        ((4, 8, 8, 8, 16, 32), [4, 8, 8, 8]),
        ((8, 8, 16, 16, 32), [8, 8, 16, 16]),
        ((32, 32), [32, 32]),
        ((64, 64), [64]),
    ],
    ids=str,
)
def test_nothing_is_pooled_beyond_a_dilated_backbone(strides: tuple[int, ...], pooled: list[int]) -> None:
    spec = {f"c{index}": Level(4, stride) for index, stride in enumerate(strides)}
    assert small(spec).boxes.pooling.strides == pooled


@torch.no_grad()
def test_large_regions_are_pooled_from_the_last_level_of_a_dilated_backbone() -> None:
    spec = {f"c{index}": Level(8, stride) for index, stride in enumerate((4, 8, 16, 16, 32))}
    head, features = small(spec).eval(), make_maps(spec, 512, 512)
    boxes, images = torch.tensor([[0.0, 0, 240, 240], [0, 0, 500, 500]]), torch.zeros(2, dtype=torch.int64)
    levels = head(features).maps
    expected = head.boxes(levels, boxes, images).logits
    levels[3][:] = 0
    assert (head.boxes(levels, boxes, images).logits != expected).any(1).all()


@pytest.mark.parametrize(
    ("extractor", "extra"),
    [("fpn_level", 0), ("adaptive", 2 * (8 * 49 * 16 + 16)), ("soft", 24 * 8 + 8 + 8 * 9 * 3 + 3)],
)
def test_parameters_of_roi_extractors(extractor: str, extra: int) -> None:
    def count(head: FasterRCNN) -> int:
        return sum(parameter.numel() for parameter in head.parameters())

    assert count(small(roi={"extractor": extractor})) - count(small()) == extra


@pytest.mark.parametrize("extractor", ["fpn_level", "adaptive", "soft"])
@pytest.mark.parametrize("box_head", ["two_linear", "four_conv"])
def test_every_choice_trains_every_parameter(extractor: str, box_head: str, make_targets: MakeTargets) -> None:
    head, targets = small(roi={"extractor": extractor}, boxes={"head": box_head}), make_targets([2, 0], size=(128, 128))
    losses = head.loss(head(make_maps(), None, targets), targets)
    assert list(losses) == ["objectness", "rpn_box", "cross_entropy", "smooth_l1"]
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_fusion_by_the_largest_value_and_by_the_sum() -> None:
    by_max, by_sum = (small(roi={"extractor": "adaptive", "fusion": fusion}).eval() for fusion in ("max", "sum"))
    by_sum.load_state_dict(by_max.state_dict())
    pooled = [torch.randn(5, 8, 7, 7) for _ in range(3)]
    each = torch.stack([layer(x) for layer, x in zip(by_max.boxes.head.first, pooled, strict=True)])
    torch.testing.assert_close(by_max.boxes.head(pooled), by_max.boxes.head.rest(each.amax(0)))
    torch.testing.assert_close(by_sum.boxes.head(pooled), by_max.boxes.head.rest(each.sum(0)))


def test_samples_are_proposals_and_the_objects_own_boxes(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    ((_, regions),) = head(make_maps(), None, targets).stages
    for image, target in enumerate(targets):
        own = regions.images == image
        assert own.sum() <= 24
        positive = own & (regions.labels >= 0)
        assert positive.sum() <= 6
        objects = regions.objects[positive]
        assert set(objects.tolist()) == set(range(len(target.labels)))
        torch.testing.assert_close(regions.target_boxes[positive], target.boxes[objects])
        torch.testing.assert_close(regions.labels[positive], target.labels[objects])
        torch.testing.assert_close(regions.weights[own], torch.full((int(own.sum()),), 1 / int(own.sum())))
        assert torch.equal(regions.boxes[own & regions.is_ground_truth], target.boxes)


def test_detections_lie_on_the_image_not_on_its_padding() -> None:
    head = small(detection={"score_threshold": 0.0}).eval()
    mask = torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[0, 100:] = mask[0, :, 80:] = True
    with torch.no_grad():
        decoded = head.decode(head(make_maps(), mask))
    first, second = (boxes[valid] for boxes, valid in zip(decoded.boxes, decoded.valid, strict=True))
    assert first[:, 2].max() <= 80
    assert first[:, 3].max() <= 100
    assert second[:, 2:].max() > 100


def test_without_a_mask_detections_end_with_the_last_cell() -> None:
    head = small(detection={"score_threshold": 0.0}).eval()
    with torch.no_grad():
        output = head(make_maps(height=126, width=121), None, None, torch.tensor([[126.0, 121.0]]))
    assert output.box_limits.tolist() == [[128.0, 124.0]]
    boxes = head.decode(output).boxes
    assert 121 < boxes[..., 0::2].max() <= 124


def test_scores_are_the_softmax_without_background() -> None:
    head = small(detection={"score_threshold": 0.0, "max_detections": 1000, "nms_threshold": 1.0}).eval()
    with torch.no_grad():
        output = head(make_maps())
        proposals = head.first_stage.propose(output.rpn, output.box_limits, training=False)
        probabilities: Tensor = head.boxes(output.maps, *proposals.as_rows()).logits.softmax(-1)[:, :-1]
        decoded = head.decode(output)
    best = probabilities.unflatten(0, (2, -1)).flatten(1).sort(1, descending=True).values
    assert int(decoded.valid[0].sum()) > 10
    torch.testing.assert_close(decoded.scores[0, :5], best[0, :5])


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_detections_of_an_output_with_targets_are_the_same(training: bool, make_targets: MakeTargets) -> None:
    head = small(detection={"score_threshold": 0.0}).train(training)
    predicted = head.decode(head(make_maps()))
    trained = head.decode(head(make_maps(), None, make_targets([3, 1], size=(128, 128))))
    assert predicted.valid.any(1).all()
    for ours, expected in zip(trained[:4], predicted[:4], strict=True):
        assert torch.equal(ours, expected)


@torch.no_grad()
def test_what_fills_up_is_last_and_has_no_score() -> None:
    head = small(detection={"score_threshold": 0.0, "max_detections": 15}).eval()
    head.boxes.classes.weight.normal_()  # a fresh head finds everything equally likely
    output = head(make_maps())
    middle = float(head.decode(output).scores.median())
    head.detection = replace(head.detection, score_threshold=middle)
    decoded = head.decode(output)
    assert decoded.boxes.shape == (2, 15, 4)
    assert 0 < decoded.valid.sum() < decoded.valid.numel()
    for scores, valid in zip(decoded.scores, decoded.valid, strict=True):
        assert (scores.diff() <= 0).all()
        assert (scores[valid] > middle).all()
        assert (scores[~valid] == 0).all()


@torch.no_grad()
def test_a_prediction_is_in_the_precision_of_its_output() -> None:
    head = small(detection={"score_threshold": 0.0}).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = head(make_maps())
        within = head.decode(output)
    after = head.decode(output)
    assert output.maps[0].dtype == torch.float32
    assert output.rpn.logits[0].dtype == torch.bfloat16
    for one, other in zip(within[:4], after[:4], strict=True):
        assert torch.equal(one, other)
    assert after.scores.dtype == after.boxes.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_precisions_predict(dtype: torch.dtype) -> None:
    head = small(detection={"score_threshold": 0.0}).eval()
    expected = head.decode(head(make_maps()))
    decoded = head.to(dtype).decode(head({name: x.to(dtype) for name, x in make_maps().items()}))
    assert decoded.scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-6 if dtype == torch.float64 else 0.01
    torch.testing.assert_close(decoded.scores[:, 0], expected.scores[:, 0], rtol=0, atol=tolerance, check_dtype=False)


def test_limits_are_named_and_raised() -> None:
    head = small(detection={"max_detections": 5})
    assert isinstance(head, LimitedHead)
    assert not isinstance(head, WorstCaseHead)
    limits = [
        ("rpn.pre_nms_top_k", 40, True),
        ("rpn.post_nms_top_k", 20, False),
        ("detection.max_detections", 5, False),
    ]
    assert list(head.object_limits()) == limits
    head.raise_limits(30)
    assert [limit for _, limit, _ in head.object_limits()] == [40, 30, 30]
    # The numbers of training stay.
    assert head.first_stage.options.pre_nms_top_k == (60, 40)
    assert head.first_stage.options.post_nms_top_k == (30, 30)
    with torch.no_grad():
        assert head.decode(head(make_maps())).scores.shape == (2, 30)


@pytest.mark.parametrize(
    "broken",
    ["first_stage.rpn.logits.weight", "first_stage.rpn.deltas.bias", "boxes.classes.weight", "boxes.boxes.bias"],
)
def test_divergence_is_visible(broken: str) -> None:
    assert_divergence_is_visible(small(), make_maps(), broken)


def test_the_loss_needs_targets_in_forward(make_targets: MakeTargets) -> None:
    head = small()
    with pytest.raises(ValueError, match="the loss needs an output that was made with the targets"):
        head.loss(head(make_maps()), make_targets([1, 1], size=(128, 128)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi": {"num_samples": 0}}, "num_samples is at least 1, not 0"),
        ({"rpn": {"post_nms_top_k": (10, 0)}}, "post_nms_top_k is at least 1, not 0"),
        ({"rpn": {"nms_threshold": -0.5}}, r"nms_threshold is in \[0, 1\], not -0.5"),
        ({"detection": {"nms_threshold": 1.5}}, r"nms_threshold is in \[0, 1\], not 1.5"),
        ({"detection": {"max_detections": 0}}, "max_detections is at least 1, not 0"),
        ({"roi": {"extractor": "all"}}, r"extractor is one of \['fpn_level', 'adaptive', 'soft'\], not 'all'"),
        ({"roi": {"level_epsilon": "out"}}, r"level_epsilon is one of \['outside', 'inside'\], not 'out'"),
        ({"roi": {"fusion": "mean"}}, r"fusion is one of \['max', 'sum'\], not 'mean'"),
        ({"boxes": {"head": "none"}}, r"head is one of \['two_linear', 'four_conv'\], not 'none'"),
        ({"boxes": {"hidden_dim": 0}}, "hidden_dim is at least 1, not 0"),
        ({"boxes": {"aux_weight": -0.5}}, "aux_weight is at least 0, not -0.5"),
        ({"boxes": {"aux_weight": float("nan")}}, "aux_weight is at least 0, not nan"),
        ({"rpn": {"num_convs": 0}}, "num_convs is at least 1, not 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
