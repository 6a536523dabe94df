"""Deformable DETR's head: initial weights, decoding, refinement and sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from deformable_detr_head import (
    DECODER,
    REFINE,
    SPEC,
    TWO_STAGE,
    VARIANTS,
    fresh_head,
    maps,
    padding_mask,
    record_inputs,
    small_head,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.deformable_detr import DeformableDETR
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.queries import DecoderOptions
from boxwright.structures import Category, Level, Targets
from boxwright_runtime.input_format import InputFormat

MakeTargets = Callable[..., list[Targets]]

every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def published(variant: str) -> Detector:
    """Build the model of the paper for 91 classes."""
    single = variant.startswith("single")
    backbone = ResNet(
        norm="frozen",
        frozen_stages=2,
        levels=("c5",) if single else ("c3", "c4", "c5"),
        dilation="after_first" if variant == "single dc5" else "none",
    )
    neck = DeformableEncoder(backbone.out_spec, num_levels=1 if single else 4)
    head = DeformableDETR(neck.out_spec, 91, **VARIANTS.get(variant, {}))
    categories = [Category(i, f"class {i}") for i in range(91)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


@pytest.mark.parametrize(
    ("variant", "total", "trainable"),
    [
        ("base", 40_069_665, 39_847_265),
        ("refine", 40_849_660, 40_627_260),
        ("two stage", 41_181_529, 40_959_129),
        ("single", 34_066_593, 33_844_193),
        ("single dc5", 34_066_593, 33_844_193),
    ],
)
def test_published_parameters(variant: str, total: int, trainable: int) -> None:
    with torch.device("meta"):
        parameters = list(published(variant).parameters())
    assert sum(p.numel() for p in parameters) == total
    assert sum(p.numel() for p in parameters if p.requires_grad) == trainable


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "height", "width", "gmac"),
    [
        ("base", 640, 640, 79.35),
        ("base", 800, 1066, 163.96),
        ("single", 640, 640, 37.50),
        ("single", 800, 1066, 76.36),
        ("single dc5", 640, 640, 60.80),
        ("single dc5", 800, 1066, 124.90),
    ],
)
def test_published_costs(variant: str, height: int, width: int, gmac: float) -> None:
    detector = published(variant).eval()
    detector.head.count_as_published = True
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        detector(torch.zeros(1, 3, height, width))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, abs=0.005)


def test_heads_are_one_for_all_layers_or_one_per_layer() -> None:
    for options, count in (({}, 1), (REFINE, 3), (TWO_STAGE, 4)):
        state = fresh_head(**options).state_dict()
        assert len([name for name in state if name.startswith("classes.") and name.endswith("weight")]) == count
        assert len([name for name in state if name.startswith("boxes.") and name.endswith("layers.2.weight")]) == count


@every_variant
def test_starts_as_published(options: dict[str, bool]) -> None:
    head = fresh_head(**options)
    for classes, boxes in zip(head.classes, head.boxes, strict=True):
        torch.testing.assert_close(classes.bias, torch.full((4,), -math.log(99)), rtol=0, atol=1e-6)
        assert (boxes.layers[-1].weight == 0).all()
        torch.testing.assert_close(classes.weight, head.classes[0].weight, rtol=0, atol=0)
        torch.testing.assert_close(boxes.layers[0].weight, head.boxes[0].layers[0].weight, rtol=0, atol=0)
    sides = [0.0, 0.0, -2.0, -2.0]
    assert head.boxes[0].layers[-1].bias.tolist() == ([0.0] * 4 if options == TWO_STAGE else sides)
    assert all(boxes.layers[-1].bias.tolist() == [0.0] * 4 for boxes in head.boxes[1:])
    bound = math.sqrt(6 / (16 + 32))
    assert 0.95 * bound < head.layers[0].feed_forward.linear1.weight.abs().max() <= bound


def test_queries_start_from_a_normal_distribution_and_are_position_and_content() -> None:
    head = DeformableDETR(SPEC, 4, decoder=DecoderOptions(num_layers=1)).eval()
    assert head.queries.weight.std().item() == pytest.approx(1, abs=0.01)
    assert (head.reference_points.bias == 0).all()
    inputs = record_inputs(head.layers[0])
    head(maps())
    content, positions, reference = inputs[0][:3]
    torch.testing.assert_close(positions[1], head.queries.weight[:, :256], rtol=0, atol=0)
    torch.testing.assert_close(content[1], head.queries.weight[:, 256:], rtol=0, atol=0)
    expected = head.reference_points(head.queries.weight[:, :256]).sigmoid()
    torch.testing.assert_close(reference[0, :, 2], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, REFINE], ids=["base", "refine"])
def test_fresh_boxes_lie_around_the_reference_points(options: dict[str, bool], make_targets: MakeTargets) -> None:
    head = fresh_head(**options)
    boxes = head(maps(), None, make_targets([1, 1])).boxes_cxcywh_norm
    points = head.reference_points(head.queries.weight[:, :16]).sigmoid()
    side = torch.full_like(points, 1 / (1 + math.exp(2)))
    expected = torch.cat((points, side), -1).expand(3, 2, -1, -1)
    torch.testing.assert_close(boxes, expected, rtol=0, atol=1e-5)


def decoded(head: DeformableDETR, mask: Tensor | None, targets: list[Targets]) -> list[tuple[Tensor, Tensor]]:
    """Compute references and boxes layer by layer, in a loop of our own around the head's layers."""
    calls, outputs = record_inputs(head.layers[0]), []
    head(maps(), mask, targets)
    content, positions, on_levels, memory, shapes = calls[0]
    padding = None
    ratios = torch.ones(2, 3, 2)
    if mask is not None:
        content_cells = torch.tensor([[[12, 8], [6, 4], [3, 2]], [[8, 5], [4, 3], [2, 2]]])
        ratios = content_cells / torch.tensor([[12, 8], [6, 4], [3, 2]])
        padding = torch.cat([mask[:, ::s, ::s].flatten(1) for s in (8, 16, 32)], 1)
    reference = on_levels[:, :, 0] / ratios[:, None, 0].repeat(1, 1, on_levels.shape[-1] // 2)
    for i, layer in enumerate(head.layers):
        wide = ratios.repeat(1, 1, reference.shape[-1] // 2)
        content = layer(content, positions, reference[:, :, None] * wide[:, None], memory, shapes, padding=padding)
        delta = head.boxes[i if head.refinement == "once" else 0](content)
        start = inverse_sigmoid(reference)
        box = torch.cat((delta[..., :2] + start[..., :2], delta[..., 2:]), -1)
        if reference.shape[-1] == 4:
            box = delta + start
        outputs.append((reference, box.sigmoid()))
        if head.refinement == "once":
            reference = box.sigmoid()
    return outputs


@every_variant
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_boxes_of_every_layer(options: dict[str, bool], padded: bool, make_targets: MakeTargets) -> None:
    head, targets = small_head(**options), make_targets([2, 1])
    mask = padding_mask() if padded else None
    expected = decoded(head, mask, targets)
    ours = head(maps(), mask, targets).boxes_cxcywh_norm
    for layer, (_, boxes) in zip(ours, expected, strict=True):
        torch.testing.assert_close(layer, boxes, rtol=0, atol=1e-5)
    # Points stay points; boxes move from layer to layer.
    widths = [reference.shape[-1] for reference, _ in expected]
    assert (
        widths
        == {"base": [2] * 3, "refine": [2, 4, 4], "two stage": [4] * 3}[
            next(name for name, variant in VARIANTS.items() if variant == options)
        ]
    )


def test_a_layer_is_not_trained_by_the_boxes_of_the_next(make_targets: MakeTargets) -> None:
    head = small_head(**REFINE)
    output = head(maps(), None, make_targets([1, 1]))
    output.boxes_cxcywh_norm[2].sum().backward()
    reached = [boxes.layers[0].weight.grad.abs().sum() > 0 for boxes in head.boxes]
    assert reached == [False, False, True]
    # Points are trained by the first layer, which samples around them.
    assert head.reference_points.weight.grad.abs().sum() > 0


def test_only_levels_of_another_width_are_projected() -> None:
    head = small_head()
    assert list(head.projections) == ["c3", "c5"]
    assert list(fresh_head({"c4": Level(16, 16)}).projections) == []


def test_auxiliary_levels_are_skipped() -> None:
    spec = {"raw": Level(6, 8, auxiliary=True), **{name: SPEC[name] for name in ("c4", "c5")}}
    assert small_head(spec).projections.levels == ["c4", "c5"]


def test_shared_heads_run_on_the_last_layer_only_without_targets(make_targets: MakeTargets) -> None:
    head = small_head()
    calls = record_inputs(head.boxes[0])
    prediction = head(maps())
    trained = head(maps(), None, make_targets([1, 1]))
    assert len(calls) == 1 + 3
    assert prediction.logits.shape == (1, 2, 12, 4)
    assert trained.logits.shape == (3, 2, 12, 4)
    for field in ("logits", "boxes_cxcywh_norm"):
        ours, expected = getattr(prediction, field)[-1], getattr(trained, field)[-1]
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_at_most_100_pairs_of_query_and_class_are_detected() -> None:
    decoder = DecoderOptions(num_heads=2, num_layers=1)
    head = DeformableDETR(SPEC, 20, hidden_dim=16, num_queries=12, decoder=decoder).eval()
    assert head.decode(head(maps())).scores.shape == (2, 100)
    assert head.object_limits() == [("num_queries", 12, False), ("max_detections", 100, False)]
    head.raise_limits(150)
    assert head.decode(head(maps())).boxes.shape == (2, 150, 4)
    head.raise_limits(7)
    assert head.object_limits()[1].limit == 150


def test_loss_and_detections_come_from_one_forward(make_targets: MakeTargets) -> None:
    for options in VARIANTS.values():
        head = small_head(**options)
        alone, trained = (head.decode(head(maps(), padding_mask(), t)) for t in (None, make_targets([2, 1])))
        for ours, expected in zip(trained[:4], alone[:4], strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_detections_are_in_pixels_of_the_image_inside_its_padding() -> None:
    head = small_head()
    output = head(maps(), padding_mask())
    assert output.valid_sizes.tolist() == [[64, 96], [40, 64]]
    boxes = output.boxes_cxcywh_norm[-1, 1]
    corners = torch.cat((boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2), 1)
    expected = corners * torch.tensor([64.0, 40.0, 64.0, 40.0])
    best = output.logits[-1, 1].flatten().argmax() // 4
    torch.testing.assert_close(head.decode(output).boxes[1, 0], expected[best], rtol=0, atol=1e-4)
    assert head(maps()).valid_sizes.tolist() == [[64, 96]]
    sizes = torch.tensor([[60.0, 90.0], [33.0, 60.0]])
    assert head(maps(), padding_mask(), None, sizes).valid_sizes is sizes


def test_each_level_has_its_own_number_of_points() -> None:
    head = small_head(decoder=replace(DECODER, num_points=[3, 6, 1]))
    assert head.layers[0].cross_attention.points == (3, 6, 1)
    assert head(maps()).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"one for each of 3 levels, not \[3, 6\]"):
        small_head(decoder=replace(DECODER, num_points=[3, 6]))


def test_prediction_does_not_depend_on_dropout_in_evaluation() -> None:
    head = small_head(decoder=replace(DECODER, dropout=0.5))
    torch.testing.assert_close(head(maps()).logits, head(maps()).logits, rtol=0, atol=0)
    head.train()
    assert (head(maps()).logits - head(maps()).logits).abs().max() > 1e-2


@every_variant
def test_boxes_are_float32_under_autocast(options: dict[str, bool], make_targets: MakeTargets) -> None:
    head, targets = small_head(**options).train(), make_targets([2, 1])
    with torch.autocast("cpu", torch.bfloat16):
        output = head(maps(), None, targets)
        losses = head.loss(output, targets)
    assert output.logits.dtype == torch.bfloat16
    assert output.boxes_cxcywh_norm.dtype == torch.float32
    # Not merely stored in float32.
    boxes = output.boxes_cxcywh_norm
    assert (boxes.bfloat16().float() == boxes).float().mean() < 0.1
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"two_stage": True}, "set refine to true as well"),
        ({"refine": True, "auxiliary_losses": False}, "refine needs auxiliary_losses"),
        ({"hidden_dim": 18}, r"hidden_dim is a multiple of 4 and of num_heads \(2\), not 18"),
        ({"num_queries": 0}, "num_queries is at least 1, not 0"),
        ({"num_classes": 0}, "num_classes is at least 1, not 0"),
        ({"num_points": 0}, "num_points is one number of at least 1"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    if "num_points" in options:
        options = {"decoder": replace(DECODER, **options)}
    with pytest.raises(ValueError, match=message):
        fresh_head(**options)


@pytest.mark.parametrize("option", ["num_layers", "num_heads"])
def test_bad_options_of_the_decoder(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} is at least 1, not 0"):
        DecoderOptions(**{option: 0})
