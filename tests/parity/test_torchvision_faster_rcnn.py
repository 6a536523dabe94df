"""Faster R-CNN of torchvision with our weights: proposals, detections, losses, gradients."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from boxwright.backbones.resnet import ResNet
from boxwright.data.images import InputFormat
from boxwright.detector import Detector
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.necks.fpn import FPN
from boxwright.structures import Category, ImageSize, Targets

MakeTargets = Callable[..., list[Targets]]

HEIGHT, WIDTH = 128, 192
CHANNELS, NUM_CLASSES = 16, 5
RENAMES: list[tuple[str, Any]] = [
    (r"^backbone\.", r"backbone.body."),
    (r"^necks\.0\.pyramid\.lateral\.c(\d)\.", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 2}.0."),
    (r"^necks\.0\.pyramid\.smooth\.c(\d)\.", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 2}.0."),
    (r"^head\.rpn\.convs\.(\d)\.", r"rpn.head.conv.\1.0."),
    (r"^head\.rpn\.logits\.", r"rpn.head.cls_logits."),
    (r"^head\.rpn\.deltas\.", r"rpn.head.bbox_pred."),
    (r"^head\.boxes\.head\.first\.0\.1\.", r"roi_heads.box_head.fc6."),
    (r"^head\.boxes\.head\.rest\.1\.", r"roi_heads.box_head.fc7."),
    (r"^head\.boxes\.classes\.", r"roi_heads.box_predictor.cls_score."),
    (r"^head\.boxes\.boxes\.", r"roi_heads.box_predictor.bbox_pred."),
]


def renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under torchvision's names; background is its first class and our last."""
    theirs = {}
    for name, tensor in ours.items():
        if name.startswith("head.boxes.classes."):
            tensor = tensor.roll(1, 0)
        if name.startswith("head.boxes.boxes."):
            tensor = tensor.roll(4, 0)
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs


def our_detector(depth: int, channels: int, num_classes: int, **options: Any) -> Detector:
    backbone = ResNet(depth=depth, norm="frozen", levels=("c2", "c3", "c4", "c5"))  # type: ignore[arg-type]
    neck = FPN(backbone.out_spec, out_channels=channels, extra_levels=1)
    head = FasterRCNN(neck.out_spec, num_classes, **options)
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def their_detector() -> TheirFasterRCNN:
    stages = {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}
    body = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    backbone = BackboneWithFPN(body, stages, [64, 128, 256, 512], CHANNELS)
    return TheirFasterRCNN(
        backbone,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=HEIGHT,
        max_size=WIDTH,
        box_head=torchvision.models.detection.faster_rcnn.TwoMLPHead(CHANNELS * 49, 32),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(32, NUM_CLASSES + 1),
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
        box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=150,
        rpn_post_nms_top_n_test=100,
    )


@torch.no_grad()
def spread(head: FasterRCNN) -> None:
    """As if it had been trained: fresh ones give every anchor and every class the same score."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.normal_(std=0.02)
    head.rpn.deltas.weight.mul_(0.05)
    head.boxes.boxes.weight.mul_(0.5)


class Pair(NamedTuple):
    ours: Detector
    theirs: TheirFasterRCNN
    images: Tensor
    targets: list[Targets]


@pytest.fixture(scope="module")
def models() -> tuple[Detector, TheirFasterRCNN]:
    torch.manual_seed(0)
    ours = our_detector(
        18, CHANNELS, NUM_CLASSES, hidden_dim=32, num_samples=64, num_candidates=(300, 150), num_proposals=(200, 100)
    )
    theirs = their_detector()
    spread(ours.head)  # type: ignore[arg-type]
    theirs.load_state_dict(renamed(ours.state_dict()))
    return ours.double(), theirs.double()


@pytest.fixture
def pair(models: tuple[Detector, TheirFasterRCNN], make_targets: MakeTargets) -> Pair:
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = make_targets([5, 3], size=(HEIGHT, WIDTH), num_classes=NUM_CLASSES)
    return Pair(*models, images, [target._replace(boxes=target.boxes.double()) for target in targets])


def test_proposals(pair: Pair) -> None:
    ours, theirs = pair.ours.eval(), pair.theirs.eval()
    head = ours.head
    with torch.no_grad():
        output = ours(pair.images)
        features = theirs.backbone(pair.images)
        expected, _ = theirs.rpn(ImageList(pair.images, [(HEIGHT, WIDTH)] * 2), features)
        content = torch.tensor([[HEIGHT, WIDTH]], dtype=torch.float64)
        found = head._propose(output.rpn, content, training=False)  # type: ignore[operator]
    for image, boxes in enumerate(expected):
        usable = found.boxes[image][found.usable[image]]
        assert 40 < len(boxes) == len(usable)
        torch.testing.assert_close(usable, boxes, rtol=0, atol=1e-4)


def test_detections(pair: Pair) -> None:
    with torch.no_grad():
        output = pair.ours.eval()(pair.images)
        found = pair.ours.postprocess(output, [ImageSize(HEIGHT, WIDTH, HEIGHT, WIDTH)] * 2)
        theirs = pair.theirs.eval()(list(pair.images))
    for ours, wanted in zip(found, theirs, strict=True):
        assert len(wanted["scores"]) > 20
        assert len(wanted["labels"].unique()) > 2
        assert (ours.labels == wanted["labels"] - 1).all()
        torch.testing.assert_close(ours.scores, wanted["scores"], rtol=0, atol=1e-6, check_dtype=False)
        torch.testing.assert_close(ours.boxes, wanted["boxes"], rtol=0, atol=1e-3, check_dtype=False)


def test_losses_and_gradients_on_the_same_samples(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda count, **options: torch.arange(count, device=options.get("device")))
    ours, theirs = pair.ours.train(), pair.theirs.train()
    losses = ours.loss(ours(pair.images, None, pair.targets), pair.targets)
    gradients = torch.autograd.grad(sum(losses.values()), list(ours.parameters()))
    our_gradients = renamed(dict(zip([name for name, _ in ours.named_parameters()], gradients, strict=True)))
    # Theirs are means over a batch, ours over pictures: the same picture by picture.
    expected: dict[str, Tensor] = {}
    for image, target in zip(pair.images, pair.targets, strict=True):
        for name, value in theirs([image], [{"boxes": target.boxes, "labels": target.labels + 1}]).items():
            expected[name] = expected.get(name, 0) + value / 2
    names = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "cross_entropy": "loss_classifier",
        "smooth_l1": "loss_box_reg",
    }
    assert list(losses) == list(names)
    for name, value in losses.items():
        assert value > 0.001
        assert value.item() == pytest.approx(expected[names[name]].item(), rel=1e-4)
    parameters = dict(theirs.named_parameters())
    for name, gradient in zip(
        parameters, torch.autograd.grad(sum(expected.values()), list(parameters.values())), strict=True
    ):
        error = (our_gradients[name] - gradient).norm() / gradient.norm().clamp(min=1e-12)
        assert error < 1e-3, f"{name}: {error:.1e}"


def test_published_parameters() -> None:
    with torch.device("meta"):
        ours = our_detector(50, 256, 90)
    assert sum(parameter.numel() for parameter in ours.parameters()) == 41_755_286
