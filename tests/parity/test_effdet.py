"""EfficientDet beside effdet's, which loads google/automl's weights: outputs, losses, gradients, detections, sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import effdet
import pytest
import torch
from test_effdet_bifpn import their_name as their_neck_name
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from twenty_steps import compare_training_steps

from boxwright.compose.detectors import build, build_resolved
from boxwright.compose.recipes import resolve
from boxwright.detector import Detector
from boxwright.ops.box_deltas import MAX_LOG_SCALE
from boxwright.structures import Category, Targets
from boxwright.workflows.operation_counts import OPERATIONS
from conformance import (
    compare_detections,
    compare_equal,
    compare_gradients,
    compare_tensors,
    compare_terms,
    note_inputs,
)
from random_weights import calibrate, shake

pytestmark = pytest.mark.conforms("EfficientDet", "effdet")

MakeTargets = Callable[..., list[Targets]]

NUM_CLASSES = 90
SIZE = (128, 256)
CONFIGS = [f"d{i}" for i in range(7)]
PARAMETERS = dict(
    zip(CONFIGS, [3_880_067, 6_625_898, 8_097_039, 12_032_296, 20_723_675, 33_653_315, 51_871_782], strict=True)
)
MULTIPLY_ADDS = {
    "d0": 2_550_618_821,
    "d1": 6_133_752_112,
    "d2": 11_045_799_933,
    "d3": 24_982_737_931,
    "d4": 55_346_593_717,
    "d5": 135_729_505_573,
    "d6": 226_033_623_795,
    "d7": 325_473_789_367,
}
# effdet has y before x.
SWAPPED = [1, 0, 3, 2]


def their_name(name: str, ours: Detector) -> str:
    if name.startswith("backbone."):
        return name.replace("backbone.body.", "backbone.")
    if name.startswith("necks.0."):
        return "fpn." + their_neck_name(name.removeprefix("necks.0."), ours.necks[0])
    levels = list(ours.necks[0].out_spec)
    name = re.sub(r"^head\.(class|box)_tower\.blocks\.(\d)\.conv\.", r"\1_net.conv_rep.\2.", name)
    name = re.sub(
        r"^head\.(class|box)_tower\.blocks\.(\d)\.norms\.(\w+)\.",
        lambda m: f"{m[1]}_net.bn_rep.{m[2]}.{levels.index(m[3])}.bn.",
        name,
    )
    name = name.replace("head.classes.", "class_net.predict.").replace("head.boxes.", "box_net.predict.")
    return name.replace("depthwise", "conv_dw").replace("pointwise", "conv_pw")


def renamed(tensors: dict[str, Tensor], ours: Detector) -> dict[str, Tensor]:
    """Ours as effdet calls and orders them."""
    theirs = {}
    for name, tensor in tensors.items():
        if name.startswith("head.boxes.pointwise."):
            tensor = tensor.unflatten(0, (-1, 4))[:, SWAPPED].flatten(0, 1)
        theirs[their_name(name, ours)] = tensor
    return theirs


def their_model(name: str, size: tuple[int, int]) -> nn.Module:
    config = effdet.get_efficientdet_config(f"tf_efficientdet_{name}")
    config.update({"image_size": size})
    return effdet.EfficientDet(config, pretrained_backbone=False)


class Pair(NamedTuple):
    """Both models with the same weights, none of them special, and images."""

    ours: Detector
    theirs: nn.Module
    images: Tensor


def make_pair(name: str) -> Pair:
    torch.manual_seed(0)
    # effdet drops paths in every size; the published D0 does not.
    ours = build(f"efficientdet_{name}", num_classes=NUM_CLASSES, overrides={"backbone.drop_path": 0.2})
    images = torch.randn(2, 3, SIZE[0] // 4, SIZE[1] // 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    momenta = [norm.momentum for norm in ours.modules() if isinstance(norm, nn.BatchNorm2d)]
    shake(ours)
    # Scores that are 1 but for rounding would have no order.
    ours.head.classes.pointwise.weight.data *= 0.2
    calibrate(ours, images)
    for norm, momentum in zip((m for m in ours.modules() if isinstance(m, nn.BatchNorm2d)), momenta, strict=True):
        norm.momentum = momentum
    theirs = their_model(name, SIZE)
    theirs.load_state_dict(renamed(ours.state_dict(), ours))
    return Pair(ours, theirs, images)


@pytest.fixture
def pair() -> Pair:
    return make_pair("d0")


def their_targets(targets: list[Targets]) -> dict[str, list[Tensor]]:
    """Classes from 1, boxes with y before x."""
    return {"bbox": [t.boxes[:, SWAPPED] for t in targets], "cls": [(t.labels + 1).float() for t in targets]}


def flatten_predictions(maps: list[Tensor], size: int) -> Tensor:
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, size) for x in maps], 1)


@pytest.mark.parametrize(
    "name", ["d0", pytest.param("d1", marks=pytest.mark.slow), pytest.param("d2", marks=pytest.mark.slow)]
)
def test_outputs(name: str) -> None:
    ours, theirs, images = make_pair(name)
    with torch.no_grad():
        output = ours.double().eval()(images.double())
        logits, deltas = theirs.double().eval()(images.double())
    assert output.logits[0].std() > 0.5
    assert output.offsets[0].std() > 0.2
    note_inputs(images)
    for name, ours_of, expected in (
        ("logits", output.logits, flatten_predictions(logits, NUM_CLASSES)),
        ("deltas", output.offsets, flatten_predictions(deltas, 4)[..., SWAPPED]),
    ):
        compare_tensors("outputs", torch.cat(ours_of, 1), expected, limit=1e-9, name=name)
    anchors = effdet.anchors.Anchors.from_config(theirs.config).boxes[:, SWAPPED]
    compare_tensors("outputs", torch.cat(output.anchors), anchors, limit=1e-4, name="anchors", unit="pixels")


@pytest.mark.parametrize("counts", [[6, 3], [4, 0], [0, 0]], ids=str)
def test_losses_gradients_and_statistics(counts: list[int], pair: Pair, make_targets: MakeTargets) -> None:
    ours, theirs, images = pair.ours.double().train(), pair.theirs.double().train(), pair.images.double()
    targets = make_targets(counts, size=SIZE, num_classes=NUM_CLASSES)
    torch.manual_seed(1)  # the blocks that drop out
    terms = ours.loss(ours(images, None, targets), targets)
    torch.manual_seed(1)
    expected = effdet.DetBenchTrain(theirs)(images, their_targets(targets))
    note_inputs(images, targets=targets)
    total = {"total": terms["focal"] + terms["huber"]}
    theirs_of = {"focal": expected["class_loss"], "huber": 50 * expected["box_loss"], "total": expected["loss"]}
    compare_terms(terms | total, theirs_of, limit=1e-5)

    sum(terms.values()).backward()
    expected["loss"].backward()
    theirs_by_name = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    gradients = renamed({name: parameter.grad for name, parameter in ours.named_parameters()}, ours)
    # A bias in front of a norm has no gradient but for rounding.
    compare_gradients(gradients, theirs_by_name, limit=1e-3, floor=1e-7)
    state = theirs.state_dict()
    for name, tensor in renamed(ours.state_dict(), ours).items():
        # effdet leaves the backbone timm's momentum of 0.1, where google/automl has 0.01 everywhere.
        if not name.startswith("backbone."):
            torch.testing.assert_close(tensor, state[name], rtol=0, atol=1e-9, msg=name)


def test_every_anchor_has_the_same_object(make_targets: MakeTargets) -> None:
    size = (512, 640)
    ours, theirs = build("efficientdet_d0", num_classes=NUM_CLASSES), their_model("d0", size)
    targets = make_targets([40, 1, 0], size=size)
    # Small ones that only their best anchor is given to, some of them twice: the same anchor for both.
    many = targets[0].boxes
    center = (many[:, :2] + many[:, 2:]) / 2
    small = torch.cat((center, center), 1) + torch.tensor([-3.0, -4.0, 3.0, 4.0])
    whole = torch.tensor([[0.0, 0.0, size[1], size[0]]])
    targets[0] = targets[0]._replace(boxes=torch.cat((many, small, small[:5], whole)), labels=torch.arange(86))
    bench = effdet.DetBenchTrain(theirs)
    classes, _, counts = bench.anchor_labeler.batch_label_anchors(*their_targets(targets).values())
    note_inputs(torch.empty(3, 1, *size), targets=targets)
    anchors = ours.head.anchors([(-(-size[0] // s), -(-size[1] // s)) for s in ours.head.strides])
    for image, target in enumerate(targets):
        objects = ours.head.match(anchors, target.boxes)
        none = target.labels.new_full((1,), -1)
        labels = torch.cat((target.labels, none))[objects]
        compare_equal("assignment", labels, torch.cat([level[image].flatten() for level in classes]))
        assert (objects >= 0).sum() == counts[image]
    assert ours.head.count_matches(targets, size) == counts.sum()
    assert all((level >= 0).any() for level in classes)


@pytest.mark.parametrize("soft_nms", [False, True], ids=["hard", "soft"])
def test_detections(soft_nms: bool, pair: Pair) -> None:
    ours, theirs, images = pair
    head = build("efficientdet_d0", num_classes=NUM_CLASSES, overrides={"head.detection.soft_nms": soft_nms}).head
    bench = effdet.DetBenchPredict(theirs)
    bench.soft_nms = soft_nms
    info = {"img_scale": torch.ones(2), "img_size": torch.tensor([SIZE[1], SIZE[0]]).repeat(2, 1)}
    with torch.no_grad():
        output = ours.eval()(images)
        expected = bench.eval()(images, info)
    assert max(float(deltas.max()) for deltas in output.offsets) < MAX_LOG_SCALE
    decoded = head.decode(output)
    assert decoded.valid.all()
    note_inputs(images)
    for boxes, scores, labels, theirs_of_image in zip(*decoded[:3], expected, strict=True):
        assert len(scores) == 100
        assert len(set(labels.tolist())) > 10
        expected_of = theirs_of_image[:, :4], theirs_of_image[:, 4], theirs_of_image[:, 5].long() - 1
        compare_detections((boxes, scores, labels), expected_of, scores=1e-4, boxes=1e-2)


def without_storage(name: str) -> Detector:
    categories = [Category(i + 1, f"class {i}") for i in range(NUM_CLASSES)]
    with torch.device("meta"):
        return build_resolved(resolve(f"efficientdet_{name}", {}).recipe, categories=categories)


@pytest.mark.parametrize(
    "name", [name if name in ("d0", "d1") else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
)
def test_parameters(name: str) -> None:
    assert sum(parameter.numel() for parameter in without_storage(name).parameters()) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["d7", "d7x"])
def test_parameters_that_were_not_published(name: str) -> None:
    with torch.device("meta"):
        theirs = their_model(name, (1536, 1536))
    expected = {key: parameter.shape for key, parameter in theirs.named_parameters()}
    ours = without_storage(name)
    assert {their_name(key, ours): parameter.shape for key, parameter in ours.named_parameters()} == expected


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "d0" else pytest.mark.slow) for name in MULTIPLY_ADDS],
)
def test_multiply_adds(name: str) -> None:
    detector = without_storage(name).eval()
    size = detector.input_format.image_size
    with FakeTensorMode(), torch.no_grad():
        state = {n: torch.empty(x.shape, dtype=x.dtype) for n, x in detector.state_dict(keep_vars=True).items()}
        state["head.base_anchors"] = torch.empty(detector.head.base_anchors.shape)
        with FlopCounterMode(display=False, custom_mapping=OPERATIONS) as counter:
            torch.func.functional_call(detector, state, (torch.empty(1, 3, size, size),))
    assert counter.get_total_flops() / 2 == pytest.approx(MULTIPLY_ADDS[name], rel=2e-3)


@pytest.mark.slow
def test_20_training_steps(pair: Pair, make_targets: MakeTargets) -> None:
    """The same blocks drop out in both, from the seed of each step."""
    ours, theirs, images = pair.ours.double().train(), pair.theirs.double().train(), pair.images.double()
    targets = make_targets([6, 3], size=SIZE, num_classes=NUM_CLASSES)
    bench = effdet.DetBenchTrain(theirs)

    def loss_of_ours() -> Tensor:
        torch.manual_seed(1)
        return sum(ours.loss(ours(images, None, targets), targets).values())

    def loss_of_theirs() -> Tensor:
        torch.manual_seed(1)
        return bench(images, their_targets(targets))["loss"]

    note_inputs(images, targets=targets)
    compare_training_steps((ours, loss_of_ours), (theirs, loss_of_theirs), limit=1e-4)
