"""Mask R-CNN: the objects that its masks are of, its parameters, and the options that it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from diverged_head import assert_divergence_is_visible
from small_two_stage import SPEC, make_maps, small_head

from boxwright.contracts import CountedAsPublished, LimitedHead, MaskHead, WorstCaseHead
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.structures import Spec, Targets

MakeTargets = Callable[..., list[Targets]]


def small(spec: Spec = SPEC, **options: Any) -> MaskRCNN:
    """Every region is a detection."""
    sizes = {"mask": {"hidden_dim": 8}, "detection": {"score_threshold": 0.0, "max_detections": 10}}
    groups = {name: group | options.pop(name, {}) for name, group in sizes.items()}
    head: MaskRCNN = small_head(MaskRCNN, spec, **groups, **options)
    return head


def test_capabilities() -> None:
    head = small()
    assert isinstance(head, MaskHead)
    assert head.mask_region == "box"
    assert isinstance(head, LimitedHead)
    assert isinstance(head, CountedAsPublished)
    assert not head.count_as_published


@pytest.mark.parametrize("extractor", ["fpn_level", "adaptive", "soft"])
@pytest.mark.parametrize(
    "options",
    [{}, {"mask": {"norm": "batch", "num_convs": 2}}, {"mask": {"fully_connected": True}, "roi": {"fusion": "sum"}}],
    ids=str,
)
@pytest.mark.parametrize("counts", [[2, 0], [0, 0]], ids=str)
def test_every_choice_trains_every_parameter(
    extractor: str, options: dict[str, Any], counts: list[int], make_targets: MakeTargets
) -> None:
    roi = options.get("roi", {}) | {"extractor": extractor}
    head, targets = small(**(options | {"roi": roi})), make_targets(counts, size=(128, 128))
    losses = head.loss(head(make_maps(), None, targets), targets)
    assert list(losses) == ["objectness", "rpn_box", "cross_entropy", "smooth_l1", "mask"]
    assert (losses["mask"] > 0) == (sum(counts) > 0)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_parameters_of_the_mask_branch() -> None:
    def count(roi: dict[str, Any] | None = None, **mask: Any) -> int:
        boxes = small_head(FasterRCNN, roi=roi or {})
        head = small(roi=roi or {}, mask=mask)
        return sum(p.numel() for p in head.parameters()) - sum(p.numel() for p in boxes.parameters())

    conv, upsample, logits = 8 * 8 * 9 + 8, 8 * 8 * 4 + 8, 4 * 8 + 4
    assert count() == 4 * conv + upsample + logits
    assert count({"extractor": "adaptive"}) == 6 * conv + upsample + logits
    assert count(num_convs=2) == 2 * conv + upsample + logits
    assert count(norm="batch") == 4 * (conv + 8) + upsample + logits
    whole = conv + 8 * 4 * 9 + 4 + 4 * 14**2 * 28**2 + 28**2
    assert count(fully_connected=True) == 4 * conv + upsample + logits + whole


@torch.no_grad()
def test_detections_have_probabilities_of_their_cells() -> None:
    head = small().eval()
    head.masks.logits.weight.normal_(std=3)
    output = head(make_maps())
    decoded = head.decode(output)
    assert decoded.masks is not None
    assert decoded.masks.shape == (2, 10, 28, 28)
    assert decoded.masks.dtype == torch.float32
    for image, (boxes, labels, valid) in enumerate(zip(decoded.boxes, decoded.labels, decoded.valid, strict=True)):
        images = torch.full_like(labels, image)
        expected = head.masks(output.maps, boxes, images, labels).sigmoid()
        assert valid.sum() > 5
        assert expected[valid].std() > 0.05
        torch.testing.assert_close(decoded.masks[image, valid], expected[valid], rtol=0, atol=1e-6)


@torch.no_grad()
def test_masks_are_predicted_of_detections_alone() -> None:
    head = small().eval()
    seen: list[int] = []
    head.masks.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[1])))
    # A fresh head finds everything equally likely.
    head.boxes.classes.weight.normal_()
    output = head(make_maps())
    every = head.decode(output)
    middle = float(every.scores[every.valid].median())
    head.detection = replace(head.detection, score_threshold=middle)
    decoded = head.decode(output)
    assert 0 < decoded.valid.sum() < decoded.valid.numel()
    assert seen == [every.valid.sum(), decoded.valid.sum()]
    assert decoded.masks is not None
    assert decoded.masks.any(3).any(2).equal(decoded.valid)
    head.count_as_published = True
    published = head.decode(output)
    assert seen[2:] == [0]
    assert torch.equal(published.scores, decoded.scores)


@torch.no_grad()
def test_detections_of_an_output_with_targets_are_the_same(make_targets: MakeTargets) -> None:
    head = small().eval()
    predicted = head.decode(head(make_maps()))
    trained = head.decode(head(make_maps(), None, make_targets([3, 1], size=(128, 128))))
    assert predicted.valid.any()
    assert predicted.masks is not None
    for ours, expected in zip(trained, predicted, strict=True):
        assert (ours is None) == (expected is None)
        assert ours is None or torch.equal(ours, expected)


def test_a_fresh_head_can_be_given_as_many_masks_as_a_trained_one(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([1, 0], size=(128, 128))
    busy = head.worst_case_targets(targets)
    assert isinstance(head, WorstCaseHead)
    assert [len(target.labels) for target in busy] == [6, 0]
    assert torch.equal(busy[0].boxes, targets[0].boxes.expand(6, 4))
    assert busy[0].masks is not None
    assert busy[0].masks.shape == (6, 128, 128)
    # A quarter of the 24 samples of an image.
    assert len(head(make_maps(), None, busy).masks) == 6
    assert len(head(make_maps(), None, targets).masks) < 6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_other_precisions_predict(dtype: torch.dtype) -> None:
    head = small().eval().to(dtype)
    decoded = head.decode(head({name: x.to(dtype) for name, x in make_maps().items()}))
    assert decoded.masks is not None
    assert decoded.masks.dtype == decoded.scores.dtype
    assert decoded.masks.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert decoded.masks[decoded.valid].isfinite().all()


@pytest.mark.parametrize(
    "broken",
    [
        "first_stage.rpn.logits.weight",
        "first_stage.rpn.deltas.bias",
        "boxes.classes.weight",
        "boxes.boxes.bias",
        "masks.enlarge.weight",
    ],
)
def test_divergence_is_visible(broken: str) -> None:
    assert_divergence_is_visible(small(), make_maps(), broken)


def test_objects_need_masks(make_targets: MakeTargets) -> None:
    head = small()
    targets = [target._replace(masks=None) for target in make_targets([2, 1], size=(128, 128))]
    with pytest.raises(ValueError, match="trained on masks, and the targets have none"):
        head.loss(head(make_maps(), None, targets), targets)
    empty = [target._replace(masks=None) for target in make_targets([0, 0], size=(128, 128))]
    assert head.loss(head(make_maps(), None, empty), empty)["mask"] == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"num_convs": 1}, "num_convs is at least 2, not 1"),
        ({"hidden_dim": 0}, "hidden_dim is at least 1, not 0"),
        ({"norm": "group"}, r"norm is one of \['none', 'batch'\], not 'group'"),
    ],
)
def test_options_out_of_range(mask: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(mask=mask)
