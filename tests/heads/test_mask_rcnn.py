"""Mask R-CNN: what its masks are of, what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from diverged_head import assert_says_that_it_has_diverged

from boxwright.contracts import WorstCaseHead
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.ops.masks import decode_mask
from boxwright.regions.decode import Found
from boxwright.structures import Features, ImageSize, Level, Spec, Targets

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c2": Level(8, 4), "c3": Level(8, 8), "c5": Level(8, 32), "c6": Level(8, 64)}


def small(spec: Spec = SPEC, **options: Any) -> MaskRCNN:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_dim": 16, "pre_nms_top_k": (60, 40), "post_nms_top_k": (30, 20), "num_samples": 24}
    return MaskRCNN(spec, 3, **(sizes | {"mask_dim": 8, "score_threshold": 0.0, "max_detections": 10} | options))


def maps(count: int = 2) -> Features:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(count, at.channels, -(-128 // at.stride), -(-128 // at.stride), generator=generator)
        for name, at in SPEC.items()
    }


@pytest.mark.parametrize("features", ["fpn_level", "adaptive", "soft"])
@pytest.mark.parametrize(
    "options", [{}, {"mask_norm": "batch", "mask_convs": 2}, {"fully_connected_masks": True, "fusion": "sum"}]
)
@pytest.mark.parametrize("counts", [[2, 0], [0, 0]])
def test_every_choice_trains_every_parameter(
    features: Any, options: dict[str, Any], counts: list[int], make_targets: MakeTargets
) -> None:
    head, targets = small(roi_extractor=features, **options), make_targets(counts, size=(128, 128))
    losses = head.loss(head(maps(), None, targets), targets)
    assert list(losses) == ["objectness", "rpn_box", "cross_entropy", "smooth_l1", "mask"]
    assert (losses["mask"] > 0) == (sum(counts) > 0)
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_parameters_of_the_mask_branch() -> None:
    def count(**options: Any) -> int:
        plain = {key: value for key, value in options.items() if key == "roi_extractor"}
        boxes = FasterRCNN(SPEC, 3, hidden_dim=16, **plain)
        return sum(p.numel() for p in small(**options).parameters()) - sum(p.numel() for p in boxes.parameters())

    conv, enlarge, logits = 8 * 8 * 9 + 8, 8 * 8 * 4 + 8, 4 * 8 + 4
    assert count() == 4 * conv + enlarge + logits
    assert count(roi_extractor="adaptive") == 6 * conv + enlarge + logits
    assert count(mask_convs=2) == 2 * conv + enlarge + logits
    assert count(mask_norm="batch") == 4 * (conv + 8) + enlarge + logits
    whole = conv + 8 * 4 * 9 + 4 + 4 * 14**2 * 28**2 + 28**2
    assert count(fully_connected_masks=True) == 4 * conv + enlarge + logits + whole


def test_detections_have_masks_of_the_original_image_within_their_boxes() -> None:
    head = small().eval()
    with torch.no_grad():
        output = head(maps())
        found = head.postprocess(output, [ImageSize(200, 160, 128, 102), ImageSize(64, 64, 128, 128)])
    for detections, shape in zip(found, [(200, 160), (64, 64)], strict=True):
        assert detections.masks is not None
        assert len(detections.masks) == len(detections.scores) > 5
        masks = torch.stack([decode_mask(mask) for mask in detections.masks])
        assert masks.shape[1:] == shape
        assert masks.any()
        for mask, (x1, y1, x2, y2) in zip(masks, detections.boxes.tolist(), strict=True):
            rows, columns = torch.where(mask)
            # The rim of the mask is half a cell wide.
            margin_x, margin_y = (x2 - x1) / 28 + 1, (y2 - y1) / 28 + 1
            if len(rows):
                assert columns.min() >= x1 - margin_x
                assert columns.max() <= x2 + margin_x
                assert rows.min() >= y1 - margin_y
                assert rows.max() <= y2 + margin_y


def test_only_the_masks_of_what_was_found_are_looked_at() -> None:
    head = small().eval()
    seen: list[int] = []
    head.masks.register_forward_pre_hook(lambda _, given: seen.append(len(given[1])))
    with torch.no_grad():
        # A fresh head finds everything equally likely.
        head.boxes.classes.weight.normal_()
        every = head(maps()).found
        assert every is not None
        middle = float(every.scores[every.valid].median())
        head.detect = partial(head.detect, score_threshold=middle)
        output = head(maps())
        assert output.found is not None
        valid = output.found.valid
        assert 0 < valid.sum() < valid.numel()
        assert seen == [every.valid.sum(), valid.sum()]
        assert output.masks.unflatten(0, valid.shape).any((2, 3)).equal(valid)
        found = head.postprocess(output, [ImageSize(128, 128, 128, 128)] * 2)
    assert [len(detections.masks or ()) for detections in found] == valid.sum(1).tolist()


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("right", [80.0, 103.5, 120.0])
def test_a_mask_is_of_all_of_its_box_also_beyond_the_image(right: float, scale: int) -> None:
    head = small().eval()
    with torch.no_grad():
        output = head(maps(1))
    # An image 102 pixels wide and 104 high; cells of the levels reach to 128.
    boxes = torch.tensor([[[60.0, 20, right, 60], [110, 20, 120, 60], [60, 20, right, 60], [20, 105, 60, 128]]])
    valid = torch.tensor([[True, True, False, True]])
    found = Found(boxes, torch.full((1, 4), 0.5), torch.zeros(1, 4, dtype=torch.int64), valid)
    logits = torch.full((4, 28, 28), -10.0)
    logits[:, :, :14] = 10.0
    output = output._replace(found=found, masks=logits)
    (detections,) = head.postprocess(output, [ImageSize(104 * scale, 102 * scale, 104, 102)])
    # Boxes that lie beyond the image are left out, and the others cut to it.
    expected = torch.tensor([[60.0, 20, min(right, 102), 60]]) * scale
    torch.testing.assert_close(detections.boxes, expected)
    assert detections.masks is not None
    (mask,) = detections.masks
    rows, columns = torch.where(decode_mask(mask))
    assert decode_mask(mask).shape == (104 * scale, 102 * scale)
    middle = (60 + right) / 2 * scale
    assert abs(columns.min() - 60 * scale) <= 1
    assert abs(columns.max() + 1 - middle) <= 1
    assert abs(rows.min() - 20 * scale) <= 1
    assert abs(rows.max() + 1 - 60 * scale) <= 1


def test_a_fresh_head_can_be_given_as_many_masks_as_a_trained_one(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([1, 0], size=(128, 128))
    busy = head.worst_case_targets(targets)
    assert isinstance(head, WorstCaseHead)
    assert [len(target.labels) for target in busy] == [6, 0]
    assert torch.equal(busy[0].boxes, targets[0].boxes.expand(6, 4))
    assert busy[0].masks is not None
    assert busy[0].masks.shape == (6, 128, 128)
    # A quarter of the 24 samples of an image.
    assert len(head(maps(), None, busy).masks) == 6
    assert len(head(maps(), None, targets).masks) < 6


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
def test_a_model_that_has_diverged_says_so_instead_of_finding_nothing(broken: str) -> None:
    assert_says_that_it_has_diverged(small(), maps(), broken)


def test_objects_need_masks(make_targets: MakeTargets) -> None:
    head = small()
    targets = [target._replace(masks=None) for target in make_targets([2, 1], size=(128, 128))]
    with pytest.raises(ValueError, match="trained on masks, and the targets have none"):
        head.loss(head(maps(), None, targets), targets)
    empty = [target._replace(masks=None) for target in make_targets([0, 0], size=(128, 128))]
    assert head.loss(head(maps(), None, empty), empty)["mask"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_convs": 1}, "mask_convs is at least 2, not 1"),
        ({"mask_dim": 0}, "mask_dim is at least 1, not 0"),
        ({"consistent_weight": float("nan")}, "consistent_weight is at least 0, not nan"),
        ({"max_detections": 0}, "max_detections is at least 1, not 0"),
    ],
)
def test_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_outputs_are_for_the_loss_or_for_prediction(make_targets: MakeTargets) -> None:
    head, targets = small(), make_targets([1, 1], size=(128, 128))
    with pytest.raises(ValueError, match="made with targets is for the loss"):
        head.postprocess(head(maps(), None, targets), [ImageSize(128, 128, 128, 128)] * 2)
    with pytest.raises(ValueError, match="the loss needs an output that was made with the targets"):
        head.loss(head(maps()), targets)
