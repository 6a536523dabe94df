"""Faster and Mask R-CNN of torchvision with our weights: proposals, detections, masks, losses, gradients."""

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
from torchvision.models.detection import FasterRCNN as TheirFasterRCNN
from torchvision.models.detection import MaskRCNN as TheirMaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FrozenBatchNorm2d
from twenty_steps import compare_training_steps

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.faster_rcnn import FasterRCNN
from boxwright.heads.mask_rcnn import MaskRCNN
from boxwright.necks.fpn import FPN
from boxwright.ops.masks import decode_mask
from boxwright.regions.options import BoxOptions, MaskOptions, RoIOptions, RPNOptions
from boxwright.structures import Category, ImageSize, Targets
from boxwright_runtime.input_format import InputFormat
from conformance import compare, compare_detections, compare_gradients, compare_tensors, compare_terms, note_inputs

pytestmark = pytest.mark.conforms("Faster and Mask R-CNN", "torchvision")

MakeTargets = Callable[..., list[Targets]]

HEIGHT, WIDTH = 128, 192
CHANNELS, NUM_CLASSES, HIDDEN = 16, 5, 32
RENAMES: list[tuple[str, Any]] = [
    (r"^backbone\.", r"backbone.body."),
    (r"^necks\.0\.pyramid\.(lateral|smooth)\.c(\d)\.(conv\.|norm\.)?", lambda m: pyramid_name(*m.groups())),
    (r"^head\.first_stage\.rpn\.convs\.(\d)\.", r"rpn.head.conv.\1.0."),
    (r"^head\.first_stage\.rpn\.logits\.", r"rpn.head.cls_logits."),
    (r"^head\.first_stage\.rpn\.deltas\.", r"rpn.head.bbox_pred."),
    (r"^head\.boxes\.head\.first\.0\.1\.", r"roi_heads.box_head.fc6."),
    (r"^head\.boxes\.head\.rest\.1\.(weight|bias)", r"roi_heads.box_head.fc7.\1"),
    (r"^head\.boxes\.head\.rest\.5\.", r"roi_heads.box_head.5."),
    (r"^head\.boxes\.head\.first\.0\.", r"roi_heads.box_head.0."),
    (r"^head\.boxes\.head\.rest\.", r"roi_heads.box_head."),
    (r"^head\.boxes\.classes\.", r"roi_heads.box_predictor.cls_score."),
    (r"^head\.boxes\.boxes\.", r"roi_heads.box_predictor.bbox_pred."),
    (r"^head\.masks\.first\.0\.(weight|bias)", r"roi_heads.mask_head.0.0.\1"),
    (r"^head\.masks\.first\.0\.", r"roi_heads.mask_head.0."),
    (r"^head\.masks\.middle\.(\d)\.", lambda m: f"roi_heads.mask_head.{int(m[1]) + 1}."),
    (r"^head\.masks\.last\.", r"roi_heads.mask_head.3."),
    (r"^(roi_heads.*_head\.\d)\.conv\.", r"\1.0."),
    (r"^(roi_heads.*_head\.\d)\.norm\.", r"\1.1."),
    (r"^head\.masks\.enlarge\.", r"roi_heads.mask_predictor.conv5_mask."),
    (r"^head\.masks\.logits\.", r"roi_heads.mask_predictor.mask_fcn_logits."),
]
V2: dict[str, Any] = {"rpn": RPNOptions(num_convs=2), "boxes": BoxOptions(head="four_conv")}


def pyramid_name(kind: str, level: str, part: str | None) -> str:
    block = "inner_blocks" if kind == "lateral" else "layer_blocks"
    return f"backbone.fpn.{block}.{int(level) - 2}.{1 if part == 'norm.' else 0}."


def renamed(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under torchvision's names; background is its first class and our last."""
    theirs = {}
    for name, tensor in ours.items():
        if name.startswith(("head.boxes.classes.", "head.masks.logits.")):
            tensor = tensor.roll(1, 0)
        if name.startswith("head.boxes.boxes."):
            tensor = tensor.roll(4, 0)
        if name.endswith(("head.first.0.1.weight", "head.rest.5.weight")):
            # Channel after channel, where ours is cell after cell.
            tensor = tensor.unflatten(1, (49, -1)).transpose(1, 2).flatten(1)
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        theirs[name] = tensor
    return theirs


def our_detector(depth: int, num_classes: int, make_head: Any, *, channels: int = 256, v2: bool = False) -> Detector:
    norm = "frozen" if not v2 or channels == CHANNELS else "batch"
    backbone = ResNet(depth=depth, norm=norm, levels=("c2", "c3", "c4", "c5"))  # type: ignore[arg-type]
    neck = FPN(backbone.out_spec, out_channels=channels, extra_levels=1, norm="batch" if v2 else "none")
    head = make_head(neck.out_spec, num_classes)
    categories = [Category(i, f"class {i}") for i in range(num_classes)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def their_detector(*, masks: bool, v2: bool) -> TheirFasterRCNN:
    stages = {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)}
    resnet = torchvision.models.resnet18(norm_layer=FrozenBatchNorm2d)
    norm = nn.BatchNorm2d if v2 else None
    backbone = BackboneWithFPN(resnet, stages, [64, 128, 256, 512], CHANNELS, norm_layer=norm)
    box_head = TwoMLPHead(CHANNELS * 49, HIDDEN)
    if v2:
        box_head = FastRCNNConvFCHead((CHANNELS, 7, 7), [CHANNELS] * 4, [HIDDEN], norm_layer=norm)
    options: dict[str, Any] = {}
    if masks:
        options["mask_head"] = MaskRCNNHeads(CHANNELS, [HIDDEN] * 4, 1, norm_layer=norm)
        options["mask_predictor"] = MaskRCNNPredictor(HIDDEN, HIDDEN, NUM_CLASSES + 1)
    return (TheirMaskRCNN if masks else TheirFasterRCNN)(
        backbone,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        min_size=HEIGHT,
        max_size=WIDTH,
        box_head=box_head,
        box_predictor=FastRCNNPredictor(HIDDEN, NUM_CLASSES + 1),
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
        rpn_head=RPNHead(CHANNELS, 3, conv_depth=2 if v2 else 1),
        box_batch_size_per_image=64,
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=150,
        rpn_post_nms_top_n_test=100,
        **options,
    )


@torch.no_grad()
def spread(head: Any) -> None:
    """As if it had been trained: fresh ones give every anchor and every class the same score."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(std=(2 / module.weight[0].numel()) ** 0.5)
            if module.bias is not None:
                module.bias.normal_(std=0.02)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    head.first_stage.rpn.deltas.weight.mul_(0.05)
    head.boxes.boxes.weight.mul_(0.5)


class Pair(NamedTuple):
    ours: Detector
    theirs: TheirFasterRCNN
    images: Tensor
    targets: list[Targets]


@pytest.fixture(scope="module", params=["faster", "faster v2", "mask", "mask v2"])
def models(request: pytest.FixtureRequest) -> tuple[Detector, TheirFasterRCNN]:
    torch.manual_seed(2)
    masks, v2 = "mask" in request.param, "v2" in request.param
    options: dict[str, Any] = {
        "rpn": RPNOptions(num_convs=2 if v2 else 1, pre_nms_top_k=(300, 150), post_nms_top_k=(200, 100)),
        "roi": RoIOptions(num_samples=64),
        "boxes": BoxOptions(head="four_conv" if v2 else "two_linear", hidden_dim=HIDDEN),
    }
    if masks:
        options["mask"] = MaskOptions(hidden_dim=HIDDEN, norm="batch" if v2 else "none")
    head = partial(MaskRCNN if masks else FasterRCNN, **options)
    ours, theirs = our_detector(18, NUM_CLASSES, head, channels=CHANNELS, v2=v2), their_detector(masks=masks, v2=v2)
    spread(ours.head)
    theirs.load_state_dict(renamed(ours.state_dict()))
    return ours.double(), theirs.double()


@pytest.fixture
def pair(models: tuple[Detector, TheirFasterRCNN], make_targets: MakeTargets) -> Pair:
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = make_targets([5, 3], size=(HEIGHT, WIDTH), num_classes=NUM_CLASSES)
    return Pair(*models, images, [target._replace(boxes=target.boxes.double()) for target in targets])


def test_proposals(pair: Pair) -> None:
    note_inputs(pair.images)
    ours, theirs = pair.ours.eval(), pair.theirs.eval()
    with torch.no_grad():
        features = theirs.backbone(pair.images)
        expected, _ = theirs.rpn(ImageList(pair.images, [(HEIGHT, WIDTH)] * 2), features)
        levels = ours.necks[0](ours.backbone(pair.images))
        first: Any = ours.head.first_stage
        _, rpn, box_limits = first(levels, None)
        proposals = first.propose(rpn, box_limits, training=False)
    for image, boxes in enumerate(expected):
        valid = proposals.boxes[image][proposals.valid[image]]
        assert 40 < len(boxes) == len(valid)
        compare_tensors("outputs", valid, boxes, limit=1e-4, name="proposals", unit="pixels")


def test_detections_and_masks(pair: Pair) -> None:
    note_inputs(pair.images)
    with torch.no_grad():
        output = pair.ours.eval()(pair.images)
        detections = pair.ours.postprocess(output, [ImageSize(HEIGHT, WIDTH, HEIGHT, WIDTH)] * 2)
        theirs = pair.theirs.eval()(list(pair.images))
    for ours, their_own in zip(detections, theirs, strict=True):
        assert len(their_own["scores"]) > 20
        assert len(their_own["labels"].unique()) > 2
        expected_of = their_own["boxes"], their_own["scores"], their_own["labels"] - 1
        compare_detections((ours.boxes, ours.scores, ours.labels), expected_of, scores=1e-6, boxes=1e-3)
        assert (ours.masks is not None) == ("masks" in their_own)
        if ours.masks is not None:
            masks = torch.stack([decode_mask(mask) for mask in ours.masks])
            expected = their_own["masks"][:, 0]
            assert (expected > 0.5).any((1, 2)).float().mean() > 0.5
            differ = masks != (expected > 0.5)
            assert not differ[(expected - 0.5).abs() > 1e-4].any()
            fraction = differ.double().mean().item()
            compare("post-processing", fraction, 1e-4, name="part of the pixels of masks", unit="different")


def test_losses_and_gradients_on_the_same_samples(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda count, **options: torch.arange(count, device=options.get("device")))
    ours, theirs = pair.ours.train(), pair.theirs.train()
    # Theirs are means over a batch, ours over images: the same image by image. Batch norms want one alone.
    count = 1 if any(isinstance(module, nn.BatchNorm2d) for module in ours.modules()) else 2
    images, targets = pair.images[:count], pair.targets[:count]
    note_inputs(images, targets=targets)
    losses = ours.loss(ours(images, None, targets), targets)
    gradients = torch.autograd.grad(sum(losses.values()), list(ours.parameters()))
    our_gradients = renamed(dict(zip([name for name, _ in ours.named_parameters()], gradients, strict=True)))
    expected: dict[str, Tensor] = {}
    for image, target in zip(images, targets, strict=True):
        assert target.masks is not None
        own = {"boxes": target.boxes, "labels": target.labels + 1, "masks": target.masks.to(torch.uint8)}
        for name, value in theirs([image], [own]).items():
            expected[name] = expected.get(name, 0) + value / count
    names = {
        "objectness": "loss_objectness",
        "rpn_box": "loss_rpn_box_reg",
        "cross_entropy": "loss_classifier",
        "smooth_l1": "loss_box_reg",
        "mask": "loss_mask",
    }
    assert list(losses) == list(names)[: len(losses)]
    assert len(losses) == len(expected)
    assert all(value > 0.001 for value in losses.values())
    compare_terms(losses, {name: expected[names[name]] for name in losses}, limit=1e-4)
    parameters = dict(theirs.named_parameters())
    theirs_of = torch.autograd.grad(sum(expected.values()), list(parameters.values()))
    compare_gradients(our_gradients, dict(zip(parameters, theirs_of, strict=True)), limit=1e-3)


@pytest.mark.parametrize(
    ("head", "v2", "count"),
    [
        (FasterRCNN, False, 41_755_286),
        (partial(FasterRCNN, **V2), True, 43_712_278),
        (MaskRCNN, False, 44_401_393),
        (partial(MaskRCNN, **V2, mask=MaskOptions(norm="batch")), True, 46_359_409),
    ],
)
def test_published_parameters(head: Any, v2: bool, count: int) -> None:
    with torch.device("meta"):
        ours = our_detector(50, 90, head, v2=v2)
    assert sum(parameter.numel() for parameter in ours.parameters()) == count


@pytest.mark.slow
def test_20_training_steps(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image, because theirs averages over all regions of a batch."""
    monkeypatch.setattr(torch, "randperm", lambda count, **options: torch.arange(count, device=options.get("device")))
    ours, theirs = deepcopy(pair.ours).train(), deepcopy(pair.theirs).train()
    images, targets = pair.images[:1], pair.targets[:1]
    masks = targets[0].masks
    assert masks is not None
    expected = [{"boxes": targets[0].boxes, "labels": targets[0].labels + 1, "masks": masks.to(torch.uint8)}]
    note_inputs(images, targets=targets)
    compare_training_steps(
        (ours, lambda: sum(ours.loss(ours(images, None, targets), targets).values())),
        (theirs, lambda: sum(theirs(list(images), expected).values())),
        limit=1e-4,
        lr=1e-3,
    )
