"""Faster R-CNN: which levels it looks at, what it puts out, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diverged_head import assert_says_that_it_has_diverged
from torch import Tensor

from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.structures import Features, ImageSize, Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c2": Level(8, 4), "c3": Level(8, 8), "c5": Level(8, 32), "c6": Level(8, 64)}


def small(spec: Spec = SPEC, **options: Any) -> FasterRCNN:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": 16, "pre_nms_top_k": (60, 40), "post_nms_top_k": (30, 20), "num_samples": 24}
    return FasterRCNN(spec, 3, **(sizes | options))


def maps(spec: Spec = SPEC, height: int = 128, width: int = 128) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(2, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def test_the_coarsest_level_is_for_proposals_alone() -> None:
    head = small().eval()
    assert head.first_stage.rpn.strides == [4, 8, 32, 64]
    assert head.boxes.pooling.strides == [4, 8, 32]
    assert small(coarsest_region_stride=8).boxes.pooling.strides == [4, 8]
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
    spec = {f"c{place}": Level(4, stride) for place, stride in enumerate(strides)}
    assert small(spec).boxes.pooling.strides == pooled


@torch.no_grad()
def test_large_regions_are_pooled_from_the_last_level_of_a_dilated_backbone() -> None:
    spec = {f"c{place}": Level(8, stride) for place, stride in enumerate((4, 8, 16, 16, 32))}
    head, features = small(spec).eval(), maps(spec, 512, 512)
    boxes, images = torch.tensor([[0.0, 0, 240, 240], [0, 0, 500, 500]]), torch.zeros(2, dtype=torch.int64)
    first = head.first_stage(features, None, training=False)
    expected = head.boxes(first.maps, boxes, images).logits
    first.maps[3][:] = 0
    assert (head.boxes(first.maps, boxes, images).logits != expected).any(1).all()


@pytest.mark.parametrize(
    ("features", "extra"),
    [("fpn_level", 0), ("adaptive", 2 * (8 * 49 * 16 + 16)), ("soft", 24 * 8 + 8 + 8 * 9 * 3 + 3)],
)
def test_parameters_of_the_choices_of_region_features(features: Any, extra: int) -> None:
    def count(head: FasterRCNN) -> int:
        return sum(parameter.numel() for parameter in head.parameters())

    assert count(small(roi_extractor=features)) - count(small()) == extra


@pytest.mark.parametrize("features", ["fpn_level", "adaptive", "soft"])
@pytest.mark.parametrize("box_head", ["two_linear", "four_conv"])
def test_every_choice_trains_every_parameter(features: Any, box_head: Any, make_targets: MakeTargets) -> None:
    head, targets = small(roi_extractor=features, box_head=box_head), make_targets([2, 0], size=(128, 128))
    losses = head.loss(head(maps(), None, targets), targets)
    assert list(losses) == ["objectness", "rpn_box", "cross_entropy", "smooth_l1"]
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_fusion_by_the_largest_value_and_by_the_sum() -> None:
    by_max, by_sum = (small(roi_extractor="adaptive", fusion=fusion).eval() for fusion in ("max", "sum"))
    by_sum.load_state_dict(by_max.state_dict())
    pooled = [torch.randn(5, 8, 7, 7) for _ in range(3)]
    each = torch.stack([layer(x) for layer, x in zip(by_max.boxes.head.first, pooled, strict=True)])
    torch.testing.assert_close(by_max.boxes.head(pooled), by_max.boxes.head.rest(each.amax(0)))
    torch.testing.assert_close(by_sum.boxes.head(pooled), by_max.boxes.head.rest(each.sum(0)))


def test_samples_are_proposals_and_the_objects_own_boxes(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([3, 1], size=(128, 128))
    regions = head(maps(), None, targets).regions
    for image, target in enumerate(targets):
        own = regions.images == image
        assert own.sum() <= 24
        positive = own & (regions.labels >= 0)
        assert positive.sum() <= 6
        assert set(regions.objects[positive].tolist()) == set(range(len(target.labels)))
        torch.testing.assert_close(regions.wanted[positive], target.boxes[regions.objects[positive]])
        torch.testing.assert_close(regions.labels[positive], target.labels[regions.objects[positive]])
        torch.testing.assert_close(regions.shares[own], torch.full((int(own.sum()),), 1 / int(own.sum())))


def test_detections_lie_on_the_image_not_on_its_padding() -> None:
    head = small(score_threshold=0.0).eval()
    mask = torch.zeros(2, 128, 128, dtype=torch.bool)
    mask[0, 100:] = mask[0, :, 80:] = True
    with torch.no_grad():
        output = head(maps(), mask)
    first, second = (boxes[valid] for boxes, valid in zip(output.found.boxes, output.found.valid, strict=True))
    assert first[:, 2].max() <= 80
    assert first[:, 3].max() <= 100
    assert second[:, 2:].max() > 100
    sizes = [ImageSize(200, 160, 100, 80), ImageSize(128, 128, 128, 128)]
    found = head.postprocess(output, sizes)
    torch.testing.assert_close(found[0].boxes, first * 2)
    torch.testing.assert_close(found[1].boxes, second)


def test_a_score_is_the_softmax_without_background() -> None:
    head = small(score_threshold=0.0, max_detections=1000, nms_threshold=1.0).eval()
    with torch.no_grad():
        output = head(maps())
    probabilities: Tensor = output.boxes.logits.softmax(-1)[:, :-1]
    best = probabilities.unflatten(0, (2, -1)).flatten(1).sort(1, descending=True).values
    count = int(output.found.valid[0].sum())
    assert count > 10
    torch.testing.assert_close(output.found.scores[0, :5], best[0, :5])


@pytest.mark.parametrize(
    "broken",
    ["first_stage.rpn.logits.weight", "first_stage.rpn.deltas.bias", "boxes.classes.weight", "boxes.boxes.bias"],
)
def test_a_model_that_has_diverged_says_so_instead_of_finding_nothing(broken: str) -> None:
    assert_says_that_it_has_diverged(small(), maps(), broken)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_samples": 0}, "num_samples is at least 1, not 0"),
        ({"post_nms_top_k": (10, 0)}, "post_nms_top_k is at least 1, not 0"),
        ({"nms_threshold": 1.5}, r"nms_threshold is in \[0, 1\], not 1.5"),
        ({"roi_extractor": "all"}, r"roi_extractor is one of \['fpn_level', 'adaptive', 'soft'\], not 'all'"),
        ({"box_head": "none"}, "box_head is one of"),
        ({"rpn_convs": 0}, "rpn_convs is at least 1, not 0"),
        ({"consistent_weight": -0.5}, "consistent_weight is at least 0, not -0.5"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
