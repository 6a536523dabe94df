"""FCOS beside torchvision's: outputs, matched points, losses, gradients and detections."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection import FCOS as TheirFCOS  # noqa: N811
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from twenty_steps import compare_training_steps

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.fcos import FCOS
from boxwright.necks.fpn import FPN
from boxwright.structures import Category, ImageSize, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import (
    compare_detections,
    compare_equal,
    compare_gradients,
    compare_tensors,
    compare_terms,
    note_inputs,
)

pytestmark = pytest.mark.conforms("FCOS", "torchvision")

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 7
# torchvision's strides are quotients of sides: those of the levels only where all are whole.
HEIGHT, WIDTH = 128, 256
LEVELS = {"c3": 0, "c4": 1, "c5": 2}
RENAMES: list[tuple[str, Any]] = [
    (r"^backbone\.", r"backbone.body."),
    (r"^necks\.0\.pyramid\.lateral\.(c\d)\.", lambda m: f"backbone.fpn.inner_blocks.{LEVELS[m[1]]}.0."),
    (r"^necks\.0\.pyramid\.smooth\.(c\d)\.", lambda m: f"backbone.fpn.layer_blocks.{LEVELS[m[1]]}.0."),
    (r"^necks\.0\.extra\.convs\.c(\d)\.", r"backbone.fpn.extra_blocks.p\1."),
    (r"^head\.class_tower\.", r"head.classification_head.conv."),
    (r"^head\.classes\.", r"head.classification_head.cls_logits."),
    (r"^head\.box_tower\.", r"head.regression_head.conv."),
    (r"^head\.distances\.", r"head.regression_head.bbox_reg."),
    (r"^head\.centerness\.", r"head.regression_head.bbox_ctrness."),
]
TERMS = {"focal": "classification", "giou": "bbox_regression", "centerness": "bbox_ctrness"}


def renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    theirs = {}
    for name, tensor in ours.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs


def our_detector(num_classes: int = NUM_CLASSES, width: int = 256, **backbone_options: Any) -> Detector:
    backbone = ResNet(levels=("c3", "c4", "c5"), **backbone_options)
    neck = FPN(backbone.out_spec, out_channels=width, extra_levels=2, extra="conv_output")
    head = FCOS(neck.out_spec, num_classes, point_offset=0.0)
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


class Pair(NamedTuple):
    """Both detectors with the same weights; logits and distances are spread as if they had been trained."""

    ours: Detector
    theirs: TheirFCOS
    images: Tensor


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(0)
    ours = our_detector(width=64, depth=18, norm="batch", frozen_stages=0)
    stages = {f"layer{i}": f"layer{i}" for i in (2, 3, 4)}
    extra = LastLevelP6P7(64, 64)
    theirs = TheirFCOS(BackboneWithFPN(resnet18(), stages, [128, 256, 512], 64, extra), NUM_CLASSES)
    with torch.no_grad():
        for conv in (ours.head.classes, ours.head.distances, ours.head.centerness):
            conv.weight.normal_(std=0.08)
        ours.head.classes.bias.fill_(-2.0)
        for layer in (*ours.head.class_tower, *ours.head.box_tower):
            if isinstance(layer, nn.Conv2d):
                layer.bias.normal_(std=0.02)
    theirs.load_state_dict(renamed(ours.state_dict()))
    return Pair(ours, theirs, torch.randn(2, 3, HEIGHT, WIDTH))


def their_anchors(theirs: TheirFCOS, maps: list[Tensor], height: int, width: int) -> list[Tensor]:
    images = torch.empty(len(maps[0]), 3, height, width, device="meta")
    return theirs.anchor_generator(ImageList(images, [(height, width)] * len(maps[0])), maps)


def their_terms(
    theirs: TheirFCOS, outputs: dict[str, Tensor], maps: list[Tensor], targets: list[Targets], size: tuple[int, int]
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Loss terms and the object of each point."""
    matched: list[Tensor] = []

    def watched(expected: Any, actual: Any, anchors: Any, objects: list[Tensor]) -> dict[str, Tensor]:
        matched.extend(objects)
        return type(theirs.head).compute_loss(theirs.head, expected, actual, anchors, objects) if actual else {}

    theirs.head.compute_loss = watched
    expected = [{"labels": t.labels, "boxes": t.boxes} for t in targets]
    counts = [x.shape[2] * x.shape[3] for x in maps]
    terms = theirs.compute_loss(expected, outputs, their_anchors(theirs, maps, *size), counts)
    del theirs.head.compute_loss
    return terms, matched


def targets_of(make_targets: MakeTargets, counts: list[int], size: tuple[int, int]) -> list[Targets]:
    """The first object of each image takes nearly all of it."""
    targets = make_targets(counts, size=size, num_classes=NUM_CLASSES)
    for target in targets:
        target.boxes[:1] = torch.tensor([0.01, 0.02, 0.98, 0.97]) * torch.tensor([size[1], size[0], size[1], size[0]])
    return targets


def test_parameters() -> None:
    with torch.device("meta"):
        ours = our_detector(91, depth=50, norm="frozen", frozen_stages=0)
        theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    norms = sum(p.numel() for m in theirs.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    count = sum(p.numel() for p in ours.parameters())
    assert count == sum(p.numel() for p in theirs.parameters()) - norms == 32_269_600


def test_outputs_and_detections(pair: Pair) -> None:
    ours, theirs = pair.ours.eval(), pair.theirs.eval()
    note_inputs(pair.images)
    with torch.no_grad():
        output = ours(pair.images)
        maps = list(theirs.backbone(pair.images).values())
        outputs = theirs.head(maps)
        parts = (output.logits, output.offsets, output.centerness)
        for mine, name in zip(parts, ("cls_logits", "bbox_regression", "bbox_ctrness"), strict=True):
            compare_tensors("outputs", torch.cat(mine, 1), outputs[name], limit=1e-4)
        anchors = their_anchors(theirs, maps, HEIGHT, WIDTH)
        compare_tensors("outputs", torch.cat(output.anchors), anchors[0], limit=0, name="anchors", unit="pixels")
        counts = [x.shape[2] * x.shape[3] for x in maps]
        split = {name: list(x.split(counts, 1)) for name, x in outputs.items()}
        expected = theirs.postprocess_detections(split, [list(a.split(counts)) for a in anchors], [(HEIGHT, WIDTH)] * 2)
    actual = ours.postprocess(output, [ImageSize(HEIGHT, WIDTH, HEIGHT, WIDTH)] * 2)
    for detections, targets in zip(actual, expected, strict=True):
        assert 20 < len(detections.scores) == len(targets["scores"])
        mine_of = detections.boxes, detections.scores, detections.labels
        compare_detections(mine_of, [targets[n] for n in ("boxes", "scores", "labels")], scores=1e-5, boxes=1e-2)


@pytest.mark.parametrize("center_radius", [1.5, None])
def test_every_point_has_the_same_object(center_radius: float | None, pair: Pair, make_targets: MakeTargets) -> None:
    size = (768, 1280)
    targets = targets_of(make_targets, [40, 1, 0], size)
    note_inputs(torch.empty(3, 1, *size), targets=targets)
    maps = [torch.zeros(3, 1, size[0] // s, size[1] // s) for s in pair.ours.head.strides]
    points = [x.shape[2] * x.shape[3] for x in maps]
    squares = their_anchors(pair.theirs, maps, *size)[0].split(points)
    head = FCOS(pair.ours.necks[0].out_spec, NUM_CLASSES, point_offset=0.0, center_radius=center_radius)
    pair.theirs.center_sampling_radius = center_radius or float("inf")
    _, matched = their_terms(pair.theirs, {}, maps, targets, size)
    for objects, target in zip(matched, targets, strict=True):
        compare_equal("assignment", head.match(squares, target.boxes), objects)
    assert all((level >= 0).any() for level in matched[0].split(points))
    assert head.count_matches(targets, size) == sum(int((objects >= 0).sum()) for objects in matched)


@pytest.mark.parametrize("counts", [[6, 3], [0, 0]], ids=str)
def test_losses_and_gradients(counts: list[int], pair: Pair, make_targets: MakeTargets) -> None:
    ours, theirs, images = pair.ours.train(), pair.theirs.train(), pair.images
    targets = targets_of(make_targets, counts, (HEIGHT, WIDTH))
    terms = ours.loss(ours(images, None, targets), targets)
    maps = list(theirs.backbone(images).values())
    their, matched = their_terms(theirs, theirs.head(maps), maps, targets, (HEIGHT, WIDTH))
    assert sum(int((m >= 0).sum()) for m in matched) > 5 * sum(counts) or not sum(counts)
    assert list(terms) == list(TERMS)
    note_inputs(images, targets=targets)
    compare_terms(terms, {name: their[theirs_name] for name, theirs_name in TERMS.items()}, limit=1e-4)
    sum(terms.values()).backward()
    sum(their.values()).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    compare_gradients(renamed({n: p.grad for n, p in ours.named_parameters()}), expected, limit=1e-3)


@pytest.mark.slow
def test_20_training_steps(pair: Pair, make_targets: MakeTargets) -> None:
    ours, theirs, images = pair.ours.double().train(), pair.theirs.double().train(), pair.images.double()
    targets = targets_of(make_targets, [6, 3], (HEIGHT, WIDTH))
    targets = [target._replace(boxes=target.boxes.double()) for target in targets]

    def loss_of_theirs() -> Tensor:
        maps = list(theirs.backbone(images).values())
        return sum(their_terms(theirs, theirs.head(maps), maps, targets, (HEIGHT, WIDTH))[0].values())

    note_inputs(images, targets=targets)
    ours_of = ours, lambda: sum(ours.loss(ours(images, None, targets), targets).values())
    compare_training_steps(ours_of, (theirs, loss_of_theirs), limit=1e-6)
