"""DETR's head, and the sizes and costs of the published detectors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.detr import DETR, DETROutput
from boxwright.layers.positions import encode_unmasked_sine
from boxwright.layers.recording import record_modules
from boxwright.layers.tokens import to_tokens
from boxwright.necks.detr_encoder import DETREncoder
from boxwright.queries import SoftmaxCost, SoftmaxLossWeights, TransformerDecoderOptions
from boxwright.structures import Category, Level, LossTotals, Targets
from boxwright_runtime.input_format import InputFormat

SIZES = torch.tensor([[64.0, 64.0]])
MakeTargets = Callable[..., list[Targets]]
SPEC = {"c5": Level(16, 32)}


DECODER = TransformerDecoderOptions(num_heads=2, feedforward_dim=24, num_layers=3)


def head(spec: dict[str, Level] = SPEC, *, num_classes: int = 4, **options: Any) -> DETR:
    torch.manual_seed(0)
    defaults = {"hidden_dim": 16, "num_queries": 7, "decoder": DECODER}
    return DETR(spec, num_classes, **(defaults | options)).eval()


def level(batch: int = 2, channels: int = 16, height: int = 3, width: int = 4) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


def published(depth: Literal[50, 101], *, dilated: bool = False, encoder_layers: int = 6) -> Detector:
    """Build the published detector for 91 classes: COCO's ids end at 90."""
    backbone = ResNet(
        depth=depth,
        norm="frozen",
        frozen_stages=2,
        levels=("c5",),
        dilation="after_first" if dilated else "none",
    )
    neck = DETREncoder(backbone.out_spec, num_layers=encoder_layers)
    categories = [Category(i, f"class {i}") for i in range(91)]
    detr = DETR(neck.out_spec, 91)
    return Detector(backbone, [neck], detr, categories=categories, input_format=InputFormat(image_size=640)).eval()


def num_parameters(*modules: nn.Module) -> tuple[int, int]:
    """Count all parameters and the trainable ones."""
    parameters = [p for module in modules for p in module.parameters()]
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


@pytest.mark.parametrize(
    ("depth", "encoder_layers", "total", "trainable"),
    [
        (50, 0, 33_634_336, 33_411_936),
        (50, 3, 37_579_552, 37_357_152),
        (50, 6, 41_524_768, 41_302_368),
        (50, 12, 49_415_200, 49_192_800),
        (101, 6, 60_464_672, 60_242_272),
    ],
)
def test_published_parameters(depth: Literal[50, 101], encoder_layers: int, total: int, trainable: int) -> None:
    with torch.device("meta"):
        assert num_parameters(published(depth, encoder_layers=encoder_layers)) == (total, trainable)
        assert num_parameters(published(depth, dilated=True, encoder_layers=encoder_layers)) == (total, trainable)


def test_published_parameters_without_a_neck() -> None:
    with torch.device("meta"):
        backbone = ResNet(depth=50, norm="frozen", frozen_stages=2, levels=("c5",))
        assert num_parameters(backbone, DETR(backbone.out_spec, 91)) == (33_634_336, 33_411_936)


def gmac(detector: Detector, height: int, width: int) -> dict[str, float]:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        detector(torch.zeros(1, 3, height, width))
    return {name.removeprefix("Detector."): sum(x.values()) / 2e9 for name, x in counter.get_flop_counts().items()}


@pytest.mark.parametrize(
    ("depth", "dilated", "height", "width", "expected"),
    [
        (50, False, 640, 640, 38.638),
        (50, False, 800, 1066, 81.245),
        (50, True, 640, 640, 74.691),
        (50, True, 800, 1066, 173.251),
        (101, False, 800, 1066, 144.694),
        (101, True, 800, 1066, 236.700),
    ],
)
def test_published_costs(depth: Literal[50, 101], dilated: bool, height: int, width: int, expected: float) -> None:
    # The published model asks every decoder layer for classes (256-92) and boxes (256-256-256-4), ours the last.
    spared = 5 * 100 * (256 * 92 + 2 * 256 * 256 + 256 * 4) / 1e9
    with FakeTensorMode():
        assert gmac(published(depth, dilated=dilated), height, width)["Global"] + spared == pytest.approx(
            expected, rel=1e-4
        )


def test_published_costs_of_the_parts() -> None:
    with FakeTensorMode():
        plain, dilated = (gmac(published(50, dilated=dilated), 800, 1066) for dilated in (False, True))
    projection = 25 * 34 * 2048 * 256 / 1e9
    assert plain["backbone"] == pytest.approx(69.976, rel=1e-4)
    assert plain["necks.0"] - projection == pytest.approx(8.904, rel=1e-3)
    assert plain["head"] - plain["head.classes"] - plain["head.boxes"] == pytest.approx(1.825, rel=1e-3)
    assert dilated["Global"] / plain["Global"] == pytest.approx(2.13, rel=0.005)


def predictions(output: DETROutput) -> tuple[Tensor, Tensor]:
    return output.logits[-1], output.boxes_cxcywh_norm[-1]


def test_every_layer_answers_where_there_are_targets(make_targets: MakeTargets) -> None:
    detr, features, targets = head(), {"c5": level()}, make_targets([2, 1])
    every, last = detr(features, None, targets), detr(features)
    assert every.logits.shape == (3, 2, 7, 5)
    assert every.boxes_cxcywh_norm.shape == (3, 2, 7, 4)
    assert last.logits.shape == (1, 2, 7, 5)
    for one, other in zip(predictions(every), predictions(last), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    for one, other in zip(detr.decode(every)[:4], detr.decode(last)[:4], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert (every.logits[0] - every.logits[1]).abs().max() > 1e-2
    alone = head(auxiliary_losses=False)(features, None, targets)
    assert alone.logits.shape == (1, 2, 7, 5)
    torch.testing.assert_close(alone.logits, last.logits, rtol=0, atol=1e-6)


@pytest.mark.parametrize("positions_at", ["attention", "input"])
@pytest.mark.parametrize("query_positions_at", ["attention", "input"])
@pytest.mark.parametrize("positions", ["sine", "learned", "none"])
def test_positions_go_where_the_options_say(positions: str, positions_at: str, query_positions_at: str) -> None:
    detr = head(positions=positions, positions_at=positions_at, query_positions_at=query_positions_at)
    x = level()
    memory = to_tokens(x)
    encoding: Tensor | float = 0.0
    if positions != "none":
        encoding = encode_unmasked_sine(3, 4, 16) if positions == "sine" else detr.positions.learned(3, 4)
    keys, queries = memory + encoding, detr.queries.weight
    values = keys if positions_at == "input" else memory
    contents = queries.expand(2, -1, -1) if query_positions_at == "input" else torch.zeros(2, 7, 16)
    for layer in detr.layers:
        contents = layer(contents, queries if query_positions_at == "attention" else None, keys, values)
    expected = detr.classes(detr.norm(contents))
    torch.testing.assert_close(detr({"c5": x}).logits[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("query_positions_at", ["attention", "input"])
def test_costs_are_counted_wherever_queries_have_their_positions(query_positions_at: str) -> None:
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        head(query_positions_at=query_positions_at)({"c5": level()})
    assert counter.get_total_flops() > 0


def test_a_padded_image_is_seen_as_one_alone() -> None:
    detr, x = head(), level()
    mask = torch.zeros(2, 96, 128, dtype=torch.bool)
    mask[0, 64:] = True
    x[0, :, 2:] = 7.0  # what convolutions leave on padding
    together, alone = detr({"c5": x}, mask), detr({"c5": x[:1, :, :2]})
    for one, other in zip(predictions(together), predictions(alone), strict=True):
        torch.testing.assert_close(one[:1], other, rtol=0, atol=1e-5)
    assert (detr({"c5": x}).logits[0, 0] - alone.logits[0, 0]).abs().max() > 1e-2


def test_levels_of_another_width_are_projected_and_all_are_seen() -> None:
    spec = {"c4": Level(12, 16), "c5": Level(16, 32), "raw": Level(8, 32, auxiliary=True)}
    detr = head(spec)
    assert {name for name, _ in detr.projections.named_parameters()} == {"c4.weight", "c4.bias"}
    features = {"c4": level(1, 12, 6, 8).requires_grad_(), "c5": level(1).requires_grad_(), "raw": level(1, 8)}
    detr(features).logits.square().sum().backward()
    for name in ("c4", "c5"):
        gradient = features[name].grad
        assert gradient is not None
        assert (gradient.abs().amax(1) > 0).all()


def test_losses_of_known_outputs() -> None:
    detr = head(num_classes=2)
    objects = torch.tensor([[8.0, 16.0, 24.0, 48.0]])  # center box 0.25 0.5 0.25 0.5 of 64 x 64
    targets = [Targets(torch.tensor([1]), objects, (64, 64)), Targets(torch.zeros(0).long(), objects[:0], (64, 64))]
    logits = torch.zeros(2, 2, 3, 3)
    boxes = torch.tensor([0.8, 0.8, 0.1, 0.1]).repeat(2, 2, 3, 1)
    boxes[0, 0, 1] = torch.tensor([0.25, 0.5, 0.25, 0.5])  # layer 0 fits, layer 1 is a half of it
    boxes[1, 0, 2] = torch.tensor([0.25, 0.625, 0.25, 0.25])
    losses = {name: loss.item() for name, loss in detr.loss(DETROutput(logits, boxes, SIZES), targets).items()}
    # Equal logits cost log 3, whatever the weights; the mean is weighted.
    expected = {"cross_entropy_0": math.log(3), "cross_entropy": math.log(3), "l1_0": 0.0, "giou_0": 0.0}
    expected |= {"l1": 5 * (0.125 + 0.25), "giou": 2 * 0.5}
    assert losses == pytest.approx(expected, abs=1e-5)

    logits[1, 0, 2] = torch.tensor([0.0, 2.0, 0.0])
    losses = detr.loss(DETROutput(logits, boxes, SIZES), targets)
    matched = math.log(2 + math.exp(2)) - 2
    assert losses["cross_entropy"].item() == pytest.approx((matched + 0.5 * math.log(3)) / 1.5, rel=1e-5)
    # As a quarter of a step of twelve images with four objects on one of two processes.
    losses = detr.loss(DETROutput(logits, boxes, SIZES), targets, LossTotals(objects=4, images=12, processes=2))
    weight = (4 + 0.1 * (12 * 3 - 4)) / 2
    assert losses["cross_entropy"].item() == pytest.approx((matched + 0.5 * math.log(3)) / weight, rel=1e-5)
    assert losses["l1"].item() == pytest.approx(5 * 0.375 / 2, rel=1e-5)


def test_options_reach_losses_and_matching(make_targets: MakeTargets) -> None:
    features, targets = {"c5": level()}, make_targets([3, 1])
    plain = head()
    cost = plain.criterion.matcher
    assert isinstance(cost.class_cost, SoftmaxCost)
    assert (cost.class_weight, cost.l1_weight, cost.giou_weight) == (1, 5, 2)
    losses = plain.loss(plain(features, None, targets), targets)
    assert set(losses) == {f"{term}{suffix}" for term in ("cross_entropy", "l1", "giou") for suffix in ("", "_0", "_1")}
    changed = head(loss_weights=SoftmaxLossWeights(class_weight=3.0, l1_weight=10.0, giou_weight=1.0))
    others = changed.loss(changed(features, None, targets), targets)
    for name, loss in losses.items():
        factor = {"cross": 3.0, "l1": 2.0, "giou": 0.5}[name.partition("_")[0]]
        assert others[name].item() == pytest.approx(factor * loss.item(), rel=1e-5)
    even = head(loss_weights=SoftmaxLossWeights(no_object_weight=1.0))
    logits = even(features, None, targets)
    assert even.loss(logits, targets)["cross_entropy"] != losses["cross_entropy"]


def test_no_object_is_never_detected() -> None:
    logits = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 0.0, 0.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.5, 0.25, 1.0, 0.5]]])
    decoded = head(num_classes=2).decode(DETROutput(logits[None], boxes[None], torch.tensor([[50.0, 100.0]])))
    assert decoded.labels.tolist() == [[0, 1]]
    assert decoded.valid.all()
    assert decoded.scores[0].tolist() == pytest.approx(
        [math.exp(3) / (math.exp(3) + 2), math.exp(2) / (math.exp(1) + math.exp(2) + math.exp(9))], rel=1e-5
    )
    torch.testing.assert_close(decoded.boxes[0], torch.tensor([[0.0, 0.0, 100.0, 25.0], [40.0, 15.0, 60.0, 35.0]]))


def test_the_first_layers_alone_predict_and_all_are_trained(make_targets: MakeTargets) -> None:
    every, first = head(), head(decoder=replace(DECODER, eval_layers=2))
    first.load_state_dict(every.state_dict())
    features, targets = {"c5": level()}, make_targets([2, 1])
    trained, predicted = every(features, None, targets), first(features)
    assert predicted.logits.shape == (1, 2, 7, 5)
    for one, other in zip(trained[:2], predicted[:2], strict=True):
        torch.testing.assert_close(one[1], other[0], rtol=0, atol=1e-6)
    assert (trained.logits[2] - predicted.logits[0]).abs().max() > 1e-2
    for one, other in zip(trained, first(features, None, targets), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    with torch.no_grad(), record_modules(first.recorded_modules()) as recorded:
        output = first({"c5": level(1)})
    assert len(first.explain(output, recorded, 0).layers) == 2
    with pytest.raises(ValueError, match=r"eval_layers is between 1 and num_layers \(3\), not 4"):
        replace(DECODER, eval_layers=4)


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [(None, [True, True, True, True]), (0.7, [True, True, True, True]), (0.5, [True, False, True, True])],
)
def test_a_worse_detection_of_the_same_class_is_suppressed(threshold: float | None, kept: list[bool]) -> None:
    """Two boxes of one class overlap by 0.6 of their union; so do those of two classes."""
    logits = torch.tensor([[[4.0, 0.0, 0.0], [3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 0.0]]])
    first, second, apart = [0.4, 0.5, 0.4, 0.4], [0.5, 0.5, 0.4, 0.4], [0.9, 0.9, 0.1, 0.1]
    boxes = torch.tensor([[first, second, first, apart]])
    decoded = head(num_classes=2, nms_threshold=threshold).decode(DETROutput(logits[None], boxes[None], SIZES))
    assert decoded.valid[0].tolist() == kept
    assert decoded.labels[0].tolist() == [0, 0, 1, 1]


def test_limits_are_those_of_the_queries() -> None:
    detr = head()
    detr.raise_limits(100)
    assert detr.object_limits() == [("num_queries", 7, False)]


def test_initial_weights() -> None:
    torch.manual_seed(0)
    detr = DETR({"c5": Level(256, 32)}, 91, decoder=TransformerDecoderOptions(num_layers=1))
    assert detr.queries.weight.std().item() == pytest.approx(1.0, abs=0.02)
    attention = detr.layers[0].cross_attention
    assert attention.in_proj_weight.abs().max().item() == pytest.approx((6 / 1024) ** 0.5, rel=0.001)
    assert (attention.in_proj_bias == 0).all()
    # Outside of the original's transformer: torch's own initialization.
    for linear in (detr.classes, *detr.boxes.layers):
        assert linear.weight.abs().max().item() == pytest.approx(1 / 16, rel=0.02)


def test_boxes_stay_in_float32_under_mixed_precision(make_targets: MakeTargets) -> None:
    detr, features, targets = head().train(), {"c5": level()}, make_targets([2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        output = detr(features, None, targets)
        losses = detr.loss(output, targets)
    assert output.boxes_cxcywh_norm.dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_queries": 0}, "num_queries is at least 1, not 0"),
        ({"hidden_dim": 15}, r"multiple of num_heads \(2\), not 15"),
        ({"hidden_dim": 18}, "multiple of 4, not 18"),
        ({"nms_threshold": -0.1}, r"nms_threshold is in \[0, 1\], not -0.1"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], not 1.5"):
        SoftmaxLossWeights(no_object_weight=1.5)
    with pytest.raises(ValueError, match=message):
        head(**options)
    with pytest.raises(ValueError, match="num_layers is at least 1, not 0"):
        TransformerDecoderOptions(num_layers=0)
