"""EfficientDet's head: its anchors, weights, losses, detections and options."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from boxwright.dense.options import DenseDetectionOptions, FocalOptions
from boxwright.dense.output import DenseOutput
from boxwright.heads.efficientdet import EFFICIENTDET_DETECTION, EfficientDet, EfficientDetAnchorOptions
from boxwright.layers.folding import fold_norms
from boxwright.ops.box_deltas import encode_deltas
from boxwright.ops.boxes import iou
from boxwright.structures import Features, Level, LossTotals, Spec, Targets
from random_weights import calibrate, shake

MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c3": Level(16, 8), "c4": Level(16, 16), "c5": Level(16, 32)}
# Width, convolutions of a tower, parameters of the class and of the box branch, for 90 classes and five levels
PUBLISHED = {
    "d0": (64, 3, 69_354, 19_044),
    "d1": (88, 3, 101_394, 32_508),
    "d2": (112, 3, 136_890, 49_428),
    "d3": (160, 4, 247_050, 122_436),
    "d4": (224, 4, 402_890, 228_740),
    "d5": (288, 4, 591_498, 367_812),
    "d6": (384, 5, 1_090_986, 792_996),
}


def small_head(spec: Spec = SPEC, num_classes: int = 4, **options: Any) -> EfficientDet:
    torch.manual_seed(0)
    head = EfficientDet(spec, num_classes, **({"num_convs": 1} | options))
    shake(head)
    return head.eval()


def maps(height: int = 64, width: int = 64, *, batch: int = 2, spec: Spec = SPEC) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, at.channels, -(-height // at.stride), -(-width // at.stride), generator=generator)
        for name, at in spec.items()
    }


def ideal(head: EfficientDet, targets: list[Targets], size: tuple[int, int]) -> DenseOutput:
    """Make the output of a head that has learned these images by heart."""
    output = head(maps(*size, batch=len(targets)))
    anchors = torch.cat(output.anchors)
    logits = torch.cat(output.logits, 1).detach().fill_(-12.0)
    deltas = torch.cat(output.offsets, 1).detach()
    for image, target in enumerate(targets):
        objects = head.match(output.anchors, target.boxes)
        (anchor,) = torch.where(objects >= 0)
        logits[image, anchor, target.labels[objects[anchor]]] = 12.0
        deltas[image, anchor] = encode_deltas(target.boxes[objects[anchor]], anchors[anchor])
    counts = [len(level) for level in output.anchors]
    return output._replace(logits=logits.split(counts, 1), offsets=deltas.split(counts, 1))


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    width, num_convs, class_branch, box_branch = PUBLISHED[name]
    with torch.device("meta"):
        head = EfficientDet({f"p{i}": Level(width, 2**i) for i in range(3, 8)}, 90, num_convs=num_convs)
    count = {name: sum(p.numel() for p in child.parameters()) for name, child in head.named_children()}
    assert count["class_tower"] + count["classes"] == class_branch
    assert count["box_tower"] + count["boxes"] == box_branch
    assert count["input_projection"] == 0


def test_anchors_of_a_cell() -> None:
    output = small_head()(maps(40, 70))
    assert [len(level) for level in output.anchors] == [9 * 5 * 9, 9 * 3 * 5, 9 * 2 * 3]
    for level, stride, width in zip(output.anchors, (8, 16, 32), (9, 5, 3), strict=True):
        center, sides = (level[:, :2] + level[:, 2:]) / 2, (level[:, 2:] - level[:, :2]) / stride
        torch.testing.assert_close(center[:9], torch.full((9, 2), stride / 2))
        torch.testing.assert_close(center[9], torch.tensor([1.5, 0.5]) * stride)
        torch.testing.assert_close(center[9 * width], torch.tensor([0.5, 1.5]) * stride)
        shapes = torch.tensor([[1.0, 1.0], [1.4, 0.7], [0.7, 1.4]])
        expected = [4 * 2 ** (octave / 3) * shapes for octave in range(3)]
        torch.testing.assert_close(sides[:9], torch.cat(expected))
        torch.testing.assert_close(sides[-9:], torch.cat(expected))


def test_options_of_the_anchors() -> None:
    head = small_head(anchors=EfficientDetAnchorOptions(scale=5.0, octave_steps=2, aspect_ratios=((2.0, 0.5),)))
    sides = head.base_anchors[..., 2:] - head.base_anchors[..., :2]
    torch.testing.assert_close(sides[0], torch.tensor([[80.0, 20.0], [80 * 2**0.5, 20 * 2**0.5]]))
    torch.testing.assert_close(sides[2], 4 * sides[0])
    assert head(maps()).logits[0].shape == (2, 8 * 8 * 2, 4)


@pytest.mark.parametrize(
    "spec",
    [
        {"x": Level(16, 14)},
        {"c4": Level(16, 16), "c5": Level(16, 16)},
        {"c3": Level(12, 8), "raw": Level(7, 8, auxiliary=True), "c5": Level(16, 32)},
    ],
    ids=["one", "equal strides", "widths and an auxiliary one"],
)
def test_any_levels(spec: Spec) -> None:
    head = small_head(spec, channels=8)
    output = head(maps(75, 100, spec=spec))
    cells = sum(-(-75 // at.stride) * -(-100 // at.stride) for at in spec.values() if not at.auxiliary)
    assert torch.cat(output.logits, 1).shape == torch.cat(output.offsets, 1).shape == (2, 9 * cells, 4)
    assert head.count_matches([], (75, 100)) == 0


def test_levels_share_convolutions_but_not_norms() -> None:
    head, features = small_head(num_convs=2), maps()
    before = head(features)
    assert {name.rpartition("norms.")[0] for name, _ in head.named_parameters() if ".c4." in name} == {
        f"{tower}_tower.blocks.{i}." for tower in ("class", "box") for i in (0, 1)
    }
    for tower in (head.class_tower, head.box_tower):
        nn.init.constant_(tower.blocks[1].norms["c4"].bias, 3.0)
    after = head(features)
    for one, two in ((before.logits, after.logits), (before.offsets, after.offsets)):
        assert [torch.equal(a, b) for a, b in zip(one, two, strict=True)] == [True, False, True]
    features["c3"] = features["c4"]
    output = small_head(num_convs=0)(features)
    assert torch.equal(output.logits[0], output.logits[1])


@pytest.mark.parametrize(("options", "momentum"), [({}, 0.01), ({"norm_momentum": 0.1}, 0.1)])
def test_constants_of_the_norms(options: dict[str, float], momentum: float) -> None:
    norms = [module for module in small_head(**options).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 2 * 3
    assert all((norm.eps, norm.momentum) == (1e-3, momentum) for norm in norms)


def test_classes_start_improbable() -> None:
    torch.manual_seed(0)
    head = EfficientDet(SPEC, 4).train()
    scores = torch.cat(head(maps()).logits, 1).sigmoid()
    assert 0.003 < scores.median() < 0.03
    assert (head.classes.pointwise.bias == -math.log(99)).all()
    assert (head.boxes.pointwise.bias == 0).all()


def test_norms_fold_into_a_convolution_of_each_level() -> None:
    head = small_head(num_convs=2)
    calibrate(head, maps())
    folded = deepcopy(head.eval())
    for _ in range(2):
        fold_norms(folded)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, output = head(maps(40, 70)), folded(maps(40, 70))
    for one, two in zip((*expected.logits, *expected.offsets), (*output.logits, *output.offsets), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-4)


def test_losses_as_written_out(make_targets: MakeTargets) -> None:
    head, size = small_head(focal=FocalOptions(alpha=0.3, gamma=1.7), huber_delta=0.2, box_weight=7.0), (96, 128)
    targets = make_targets([6, 4], size=size)
    output = head(maps(*size))
    logits, deltas, anchors = torch.cat(output.logits, 1), torch.cat(output.offsets, 1), torch.cat(output.anchors)
    classes, huber, count = torch.zeros_like(logits), [], 0
    for image, target in enumerate(targets):
        for anchor, index in enumerate(head.match(output.anchors, target.boxes).tolist()):
            if index >= 0:
                count += 1
                classes[image, anchor, target.labels[index]] = 1
                delta = encode_deltas(target.boxes[index], anchors[anchor])
                huber.append(F.smooth_l1_loss(deltas[image, anchor], delta, beta=0.2, reduction="sum") * 0.2)
    terms = head.loss(output, targets)
    assert count > 15
    focal = sigmoid_focal_loss(logits, classes, alpha=0.3, gamma=1.7, reduction="sum")
    torch.testing.assert_close(terms["focal"], focal / (count + 1))
    torch.testing.assert_close(terms["huber"], 7 * torch.stack(huber).sum() / (4 * (count + 1)))
    assert head.count_matches(targets, size) == count

    totals = LossTotals(9, 4, processes=2, matches=3 * count)
    ratio = (count + 1) * 2 / (3 * count + 1)
    for name, value in head.loss(output, targets, totals).items():
        torch.testing.assert_close(value, terms[name] * ratio)
    with pytest.raises(ValueError, match="matches"):
        head.loss(output, targets, LossTotals.of(targets))


def test_an_object_that_no_anchor_fits_has_one() -> None:
    head, boxes = small_head(), torch.tensor([[9.0, 18.0, 12.0, 21.0]])
    anchors = head(maps()).anchors
    objects = head.match(anchors, boxes)
    (matched,) = torch.where(objects >= 0)
    assert matched.tolist() == [int(iou(boxes, torch.cat(anchors)).argmax())]
    assert (objects < 0).sum() == (objects == -1).sum() == len(objects) - 1


@pytest.mark.parametrize("counts", [[5, 2], [3, 0]], ids=str)
def test_a_head_that_knows_the_objects_has_hardly_a_loss(counts: list[int], make_targets: MakeTargets) -> None:
    head, size = small_head(), (96, 128)
    targets = make_targets(counts, size=size)
    terms = head.loss(ideal(head, targets, size), targets)
    assert terms["focal"] < 1e-4
    assert terms["huber"] < 1e-6
    assert head.loss(head(maps(*size)), targets)["huber"] > 0.1


@pytest.mark.parametrize("soft_nms", [False, True])
def test_a_head_that_knows_the_objects_finds_them(soft_nms: bool) -> None:
    head, size = small_head(detection=replace(EFFICIENTDET_DETECTION, soft_nms=soft_nms)), (96, 128)
    targets = [Targets(torch.tensor([2, 0]), torch.tensor([[3.0, 8, 60, 50], [70, 30, 110, 90]]), size)]
    boxes, scores, labels, valid, *_ = head.decode(ideal(head, targets, size))
    assert valid[0, :2].all()
    assert labels[0, :2].sort().values.tolist() == [0, 2]
    assert scores[0, 1] > 0.9
    assert scores[0, 2] < 0.2
    order = labels[0, :2].argsort(descending=True)
    torch.testing.assert_close(boxes[0, order], targets[0].boxes, rtol=0, atol=1e-3)


def test_the_best_pairs_of_all_levels_together() -> None:
    output = small_head()(maps(batch=1))
    output.logits[1][0, 3] += 20
    expected = torch.cat(output.logits, 1)[0].sigmoid().flatten().sort(descending=True).values

    def scores(**options: Any) -> Tensor:
        defaults = {"score_threshold": 0.0, "nms_threshold": 1.0, "pre_nms_top_k": 5000, "max_detections": 100}
        decoded = small_head(detection=DenseDetectionOptions(**(defaults | options))).decode(output)
        return decoded.scores[0, decoded.valid[0]]

    torch.testing.assert_close(scores(pre_nms_top_k=7, max_detections=5), expected[:5])
    torch.testing.assert_close(scores(pre_nms_top_k=3), expected[:3])
    assert len(scores(score_threshold=0.9)) == (expected > 0.9).sum()


def test_boxes_and_losses_are_computed_in_float32(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        output = head(maps())
        terms = head.loss(output, targets)
    assert output.logits[0].dtype == torch.bfloat16
    assert output.offsets[0].dtype == output.anchors[0].dtype == torch.float32
    for name, value in head.loss(head(maps()), targets).items():
        assert terms[name].dtype == torch.float32
        torch.testing.assert_close(terms[name], value, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes is at least 1, not 0"),
        ({"channels": 0}, "channels is at least 1, not 0"),
        ({"num_convs": -1}, "num_convs is at least 0, not -1"),
        ({"norm_momentum": 0.0}, r"norm_momentum is in \(0, 1\], not 0.0"),
        ({"matching_iou": 1.5}, r"matching_iou is in \[0, 1\], not 1.5"),
        ({"huber_delta": 0.0}, "huber_delta above 0"),
        ({"anchors": EfficientDetAnchorOptions(scale=0.0)}, "scale above 0"),
        ({"anchors": EfficientDetAnchorOptions(octave_steps=0)}, "octave_steps of 1 or more"),
        ({"anchors": EfficientDetAnchorOptions(aspect_ratios=())}, "aspect_ratios above 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(**options)
