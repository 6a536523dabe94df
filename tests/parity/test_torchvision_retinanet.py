"""RetinaNet of torchvision, V1 and V2, with our weights: outputs, detections, losses, gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet as TheirRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from twenty_steps import compare_training_steps

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.retinanet import RetinaNet
from boxwright.layers import conv_over_levels
from boxwright.layers.conv_over_levels import winograd_conv3x3
from boxwright.necks.fpn import FPN
from boxwright.structures import Category, ImageSize, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare_detections, compare_gradients, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("RetinaNet", "torchvision")

MakeTargets = Callable[..., list[Targets]]

# torchvision's strides are quotients of sides: those of the levels only where all are whole.
HEIGHT, WIDTH = 128, 256
CHANNELS, NUM_CLASSES = 64, 8
LEVELS = {"c3": 0, "c4": 1, "c5": 2}
RENAMES: list[tuple[str, Any]] = [
    (r"^backbone\.", r"backbone.body."),
    (r"^necks\.0\.pyramid\.lateral\.(c\d)\.", lambda m: f"backbone.fpn.inner_blocks.{LEVELS[m[1]]}.0."),
    (r"^necks\.0\.pyramid\.smooth\.(c\d)\.", lambda m: f"backbone.fpn.layer_blocks.{LEVELS[m[1]]}.0."),
    (r"^necks\.0\.extra\.convs\.c(\d)\.", r"backbone.fpn.extra_blocks.p\1."),
    (r"^head\.classes\.", r"head.classification_head.cls_logits."),
    (r"^head\.boxes\.", r"head.regression_head.bbox_reg."),
    (r"^head\.class_tower\.", r"head.classification_head.conv."),
    (r"^head\.box_tower\.", r"head.regression_head.conv."),
]


def renamed(ours: dict[str, Tensor], version: int) -> dict[str, Tensor]:
    """Tensors under torchvision's names, whose towers are nested: layers of one block share a number."""
    theirs, layers = {}, version + 1
    for name, tensor in ours.items():
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"(head\.conv)\.(\d+)\.", lambda m: f"{m[1]}.{int(m[2]) // layers}.{int(m[2]) % layers}.", name)
        theirs[name] = tensor
    return theirs


def our_detector(version: int, depth: int, channels: int, num_classes: int, *, norm: str = "frozen") -> Detector:
    backbone = ResNet(depth=depth, norm=norm)  # type: ignore[arg-type]
    extra: Any = {1: "conv_output", 2: "conv_input"}[version]
    neck = FPN(backbone.out_spec, out_channels=channels, extra_levels=2, extra=extra)
    options: dict[str, Any] = {1: {}, 2: {"norm": "group", "box_loss": "giou"}}[version]
    head = RetinaNet(neck.out_spec, num_classes, **options)
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def their_detector(version: int) -> TheirRetinaNet:
    stages = {f"layer{i}": f"layer{i}" for i in (2, 3, 4)}
    extra = LastLevelP6P7(CHANNELS if version == 1 else 512, CHANNELS)
    body = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    backbone = BackboneWithFPN(body, stages, [128, 256, 512], CHANNELS, extra)
    head = RetinaNetHead(CHANNELS, 9, NUM_CLASSES, norm_layer=partial(nn.GroupNorm, 32) if version == 2 else None)
    head.regression_head._loss_type = {1: "l1", 2: "giou"}[version]
    return TheirRetinaNet(backbone, NUM_CLASSES, head=head, **as_they_are())


def as_they_are() -> dict[str, Any]:
    """Images are taken as they are, neither normalized nor resized."""
    return {"image_mean": [0.0] * 3, "image_std": [1.0] * 3, "min_size": HEIGHT, "max_size": WIDTH}


@torch.no_grad()
def spread(head: Any) -> None:
    """As if it had been trained: fresh ones give every anchor the same score."""
    head.classes.weight.normal_(std=0.06)
    head.classes.bias.normal_(std=0.1).sub_(2.5)
    head.boxes.weight.normal_(std=0.02)
    for layer in (*head.class_tower, *head.box_tower):
        if isinstance(layer, nn.Conv2d):
            layer.weight.normal_(std=(2 / layer.weight[0].numel()) ** 0.5)
        if getattr(layer, "bias", None) is not None:
            layer.bias.normal_(std=0.02)


class Pair(NamedTuple):
    """The same detector in both libraries, and what both are given."""

    version: int
    ours: Detector
    theirs: TheirRetinaNet
    images: Tensor
    targets: list[Targets]

    def run_ours(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Losses, and gradients under torchvision's names."""
        losses = self.ours.loss(self.ours.train()(self.images, None, self.targets), self.targets)
        gradients = torch.autograd.grad(sum(losses.values()), list(self.ours.parameters()))
        named = dict(zip([name for name, _ in self.ours.named_parameters()], gradients, strict=True))
        return {name: loss.item() for name, loss in losses.items()}, renamed(named, self.version)

    def run_theirs(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        expected = [{"boxes": t.boxes, "labels": t.labels} for t in self.targets]
        losses = self.theirs.train()(list(self.images), expected)
        gradients = torch.autograd.grad(sum(losses.values()), list(self.theirs.parameters()))
        named = dict(zip([name for name, _ in self.theirs.named_parameters()], gradients, strict=True))
        return {name: loss.item() for name, loss in losses.items()}, named


Models = tuple[int, Detector, TheirRetinaNet]


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def models(request: pytest.FixtureRequest) -> Models:
    torch.manual_seed(0)
    ours, theirs = our_detector(request.param, 18, CHANNELS, NUM_CLASSES), their_detector(request.param)
    spread(ours.head)
    theirs.load_state_dict(renamed(ours.state_dict(), request.param))
    return request.param, ours, theirs


@pytest.fixture
def pair(models: Models, make_targets: MakeTargets) -> Pair:
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    return Pair(*models, images, make_targets([5, 3], size=(HEIGHT, WIDTH), num_classes=NUM_CLASSES))


@pytest.fixture(scope="module")
def double_models(models: Models) -> Models:
    """The same in float64, where a difference of 1e-6 is a difference in the mathematics."""
    version, ours, theirs = models
    return version, deepcopy(ours).double(), deepcopy(theirs).double()


@pytest.fixture
def double_pair(double_models: Models, pair: Pair) -> Pair:
    targets = [target._replace(boxes=target.boxes.double()) for target in pair.targets]
    return Pair(*double_models, pair.images.double(), targets)


def compare_losses_and_gradients(pair: Pair, *, rtol: float) -> None:
    (ours, our_gradients), (theirs, their_gradients) = pair.run_ours(), pair.run_theirs()
    box_loss = {1: "l1", 2: "giou"}[pair.version]
    assert list(ours) == ["focal", box_loss]
    note_inputs(pair.images, targets=pair.targets)
    precision = str(pair.images.dtype).removeprefix("torch.")
    expected = {"focal": theirs["classification"], box_loss: theirs["bbox_regression"]}
    compare_terms(ours, expected, limit=1e-6, precision=precision)
    compare_gradients(our_gradients, their_gradients, limit=rtol)


def test_outputs_and_anchors(pair: Pair) -> None:
    with torch.no_grad():
        output = pair.ours.eval()(pair.images)
        features = list(pair.theirs.eval().backbone(pair.images).values())
        theirs = pair.theirs.head(features)
    # Anchors are told apart, or there would be nothing to compare.
    assert theirs["cls_logits"].std() > 0.2
    assert theirs["bbox_regression"].std() > 0.1
    note_inputs(pair.images)
    compare_tensors("outputs", torch.cat(output.logits, 1), theirs["cls_logits"], limit=1e-4, name="logits")
    compare_tensors("outputs", torch.cat(output.offsets, 1), theirs["bbox_regression"], limit=1e-4, name="deltas")
    anchors = pair.theirs.anchor_generator(ImageList(pair.images, [(HEIGHT, WIDTH)] * 2), features)[0]
    compare_tensors("outputs", torch.cat(output.anchors), anchors, limit=0, name="anchors", unit="pixels")


def test_detections(double_pair: Pair) -> None:
    with torch.no_grad():
        output = double_pair.ours.eval()(double_pair.images)
        actual = double_pair.ours.postprocess(output, [ImageSize(HEIGHT, WIDTH, HEIGHT, WIDTH)] * 2)
        theirs = double_pair.theirs.eval()(list(double_pair.images))
    note_inputs(double_pair.images)
    for ours, expected in zip(actual, theirs, strict=True):
        assert len(expected["scores"]) == 300
        assert len(expected["labels"].unique()) > 3
        theirs_of = [expected[name] for name in ("boxes", "scores", "labels")]
        compare_detections((ours.boxes, ours.scores, ours.labels), theirs_of, scores=1e-6, boxes=1e-4)


def test_losses_and_gradients(double_pair: Pair) -> None:
    compare_losses_and_gradients(double_pair, rtol=1e-6)


def test_losses_and_gradients_of_an_image_without_objects(double_pair: Pair) -> None:
    nothing = double_pair.targets[0]._replace(
        labels=torch.zeros(0, dtype=torch.int64), boxes=torch.zeros(0, 4).double()
    )
    compare_losses_and_gradients(double_pair._replace(targets=[nothing, double_pair.targets[1]]), rtol=1e-6)


def test_losses_and_gradients_in_winograds_form(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(conv_over_levels, "MIN_CHANNELS", CHANNELS)
    monkeypatch.setattr(conv_over_levels, "winograd_conv3x3", lambda *args: calls.append(1) or winograd_conv3x3(*args))
    # Rounding lets a few ReLUs of V2 and sides of its boxes fall to the other side.
    compare_losses_and_gradients(pair, rtol={1: 1e-4, 2: 1e-2}[pair.version])
    assert len(calls) == 10, "of both towers and of the classes, and the finest level of the pyramid"


@pytest.mark.parametrize(
    ("version", "norm", "published"), [(1, "frozen", 34_014_999), (2, "batch", 38_198_935)], ids=["v1", "v2"]
)
def test_published_parameters(version: int, norm: str, published: int) -> None:
    with torch.device("meta"):
        ours = our_detector(version, 50, 256, 91, norm=norm)
    assert sum(p.numel() for p in ours.parameters()) == published


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2], ids=["v1", "v2"])
def test_published_detectors(version: int, make_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    ours = our_detector(version, 50, 256, 91, norm="batch")
    build = {1: retinanet_resnet50_fpn, 2: retinanet_resnet50_fpn_v2}[version]
    theirs = build(weights=None, weights_backbone=None, **as_they_are())
    theirs.load_state_dict(renamed(ours.state_dict(), version))
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    targets = make_targets([5, 3], size=(HEIGHT, WIDTH), num_classes=91)
    targets = [target._replace(boxes=target.boxes.double()) for target in targets]
    compare_losses_and_gradients(Pair(version, ours.double(), theirs.double(), images.double(), targets), rtol=1e-6)


@pytest.mark.slow
def test_20_training_steps(double_pair: Pair) -> None:
    ours, theirs = deepcopy(double_pair.ours).train(), deepcopy(double_pair.theirs).train()
    images, targets = double_pair.images, double_pair.targets
    expected = [{"boxes": target.boxes, "labels": target.labels} for target in targets]
    note_inputs(images, targets=targets)
    compare_training_steps(
        (ours, lambda: sum(ours.loss(ours(images, None, targets), targets).values())),
        (theirs, lambda: sum(theirs(list(images), expected).values())),
        limit=1e-6,
    )
