"""RT-DETR's head: selection, decoding and initial weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from rtdetr_head import DECODER, SPEC, gradients, maps, small_head
from torch import Tensor, nn

from boxwright.detector import Detector
from boxwright.heads.rtdetr import RTDETR
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.queries import RefiningDecoderOptions
from boxwright.queries.refined_queries import RefinedOutput
from boxwright.structures import Features, Level, Spec, Targets

MakeDetector = Callable[..., Detector]
MakeTargets = Callable[..., list[Targets]]


def test_boxes_and_losses_are_float32_under_autocast(make_detector: MakeDetector, make_targets: MakeTargets) -> None:
    detector, targets = make_detector().train(), make_targets([3, 1])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    corrections: list[torch.dtype] = []
    for mlp in (detector.head.encoder_boxes, *detector.head.boxes):
        mlp.register_forward_hook(lambda _, __, out: corrections.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        output = detector(images, None, targets)
        losses = detector.loss(output, targets)
        detections = detector.decode(output)
    assert output.logits.dtype == torch.bfloat16
    assert corrections == [torch.float32] * 4
    for boxes in (output.boxes_cxcywh_norm, output.noised_boxes_cxcywh_norm, detections.boxes, detections.scores):
        assert boxes.dtype == torch.float32
        # Not merely stored in float32: nearly all would survive the way through bfloat16 if they came from there.
        assert (boxes.bfloat16().float() == boxes).float().mean() < 0.1
    for value in losses.values():
        assert value.dtype == torch.float32
        assert value.isfinite()


def test_the_encoders_box_head_sees_the_selected_tokens_only() -> None:
    head = small_head()
    seen: list[tuple[int, ...]] = []
    head.encoder_boxes.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    head(maps())
    assert seen == [(2, 12, 16)]


def test_as_published_the_same_is_computed_on_every_token() -> None:
    head = small_head()
    seen: list[tuple[int, ...]] = []
    head.encoder_boxes.register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    ours = head(maps())
    head.count_as_published = True
    published = head(maps())
    assert seen[1] == (2, 64 + 16 + 4, 16)
    torch.testing.assert_close(ours.boxes_cxcywh_norm, published.boxes_cxcywh_norm, rtol=0, atol=1e-5)


def test_queries_are_the_best_tokens() -> None:
    head, seen = small_head(), {}
    head.encoder_classes.register_forward_hook(lambda _, __, out: seen.update(scores=out))
    head.encoder_boxes.register_forward_hook(lambda _, inputs, __: seen.update(selected=inputs[0]))
    head.encoder_output.register_forward_hook(lambda _, __, out: seen.update(tokens=out))
    head(maps())
    best = seen["scores"].amax(-1)
    for image in range(2):
        order = sorted(range(84), key=lambda t: -best[image, t].item())[:12]
        torch.testing.assert_close(seen["selected"][image], seen["tokens"][image, order], rtol=0, atol=0)


def test_fresh_boxes_are_the_anchors(make_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    head = RTDETR(
        SPEC, 2, hidden_dim=16, num_queries=84, decoder=RefiningDecoderOptions(num_heads=2, num_layers=2)
    ).eval()
    trained = head(maps(), None, make_targets([1, 1], num_classes=2))
    expected = []
    for level, cells in enumerate((8, 4, 2)):
        for row in range(cells):
            for column in range(cells):
                side = 0.05 * 2**level
                expected.append([(column + 0.5) / cells, (row + 0.5) / cells, side, side])
    # All 84 tokens are queries, in an order that the scores give.
    for layer in (*trained.boxes_cxcywh_norm, trained.selected_boxes_cxcywh_norm):
        for boxes in layer:
            distance = torch.cdist(boxes, torch.tensor(expected), p=1)
            assert distance.amin(1).max() < 1e-5
            assert sorted(distance.argmin(1).tolist()) == list(range(84))


def test_anchors_at_the_border_are_not_valid(make_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    spec: Spec = {"c3": Level(6, 8)}
    head = RTDETR(
        spec, 2, hidden_dim=16, num_queries=64, decoder=RefiningDecoderOptions(num_heads=2, num_layers=1)
    ).eval()
    # 64 cells in a row, all of them queries: the centers of the first and the last lie within 1 % of the border,
    # and start from an infinite logit.
    output = head({"c3": torch.randn(1, 6, 1, 64)}, None, make_targets([1], num_classes=2))
    starts = output.selected_boxes_cxcywh_norm[0]
    expected = [[(column + 0.5) / 64, 0.5, 0.05, 0.05] for column in range(1, 63)] + [[1.0] * 4] * 2
    torch.testing.assert_close(starts[starts[:, 0].argsort()], torch.tensor(expected), rtol=0, atol=1e-5)


def authors_boxes(head: RTDETR, features: Features, targets: list[Targets], twice: bool) -> list[Tensor]:
    """Refine as the authors do, in a loop of our own around the modules of the head.

    Layer i corrects the box of layer i - 1 without its gradient. Its output is the correction added to that box with
    gradient, if it looks forward twice.
    """
    start: dict[str, Tensor] = {}

    def catch(_: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        names = ("content", "positions", "reference", "memory", "shapes")
        start.update(zip(names, inputs, strict=True), **options)

    handle = head.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    torch.manual_seed(0)
    head(features, None, targets)
    handle.remove()
    content, reference = start["content"], start["reference"][:, :, 0]
    previous, out = reference, []
    for layer, box_head in zip(head.layers, head.boxes, strict=True):
        content = layer(
            content,
            head.query_positions(reference),
            reference[:, :, None],
            start["memory"],
            start["shapes"],
            blocked=start["blocked"],
        )
        correction = box_head(content)
        made = torch.sigmoid(correction + inverse_sigmoid(reference))
        out.append(torch.sigmoid(correction + inverse_sigmoid(previous)) if twice else made)
        previous, reference = made, made.detach()
    return out


@pytest.mark.parametrize("twice", [True, False])
def test_refinement_equals_the_authors_formula(twice: bool, make_targets: MakeTargets) -> None:
    head = small_head(look_forward_twice=twice).double().train()
    targets = [t._replace(boxes=t.boxes.double()) for t in make_targets([2, 1])]
    features = {name: x.double() for name, x in maps().items()}
    torch.manual_seed(0)
    output = head(features, None, targets)
    ours = torch.cat((output.noised_boxes_cxcywh_norm, output.boxes_cxcywh_norm), 2)
    expected = torch.stack(authors_boxes(head, features, targets, twice))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    cotangent = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    ours_grads = gradients(head, (ours * cotangent).sum())
    for name, grad in gradients(head, (expected * cotangent).sum()).items():
        torch.testing.assert_close(ours_grads[name], grad, rtol=1e-9, atol=1e-11)


def test_a_second_look_trains_the_layer_before_and_leaves_values_alone(make_targets: MakeTargets) -> None:
    targets = make_targets([2, 1])
    outcomes = {}
    for twice in (True, False):
        head = small_head(look_forward_twice=twice)
        torch.manual_seed(0)
        output = head(maps(), None, targets)
        (grad,) = torch.autograd.grad(output.boxes_cxcywh_norm[1].sum(), head.boxes[0].layers[-1].bias)
        outcomes[twice] = (output, grad)
    one, other = (outcomes[twice][0].boxes_cxcywh_norm for twice in (True, False))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    # Content is passed on with its gradient, but the first layer's box head is reached through boxes only.
    assert outcomes[True][1].abs().min() > 1e-3
    assert outcomes[False][1].abs().max() == 0


def predictions(output: RefinedOutput) -> tuple[Tensor, Tensor]:
    return output.logits[-1], output.boxes_cxcywh_norm[-1]


def test_prediction_uses_the_layers_it_is_told_to(make_targets: MakeTargets) -> None:
    head = small_head(decoder=replace(DECODER, eval_layers=2))
    ran: list[int] = []
    for i, layer in enumerate(head.layers):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    early = head(maps())
    assert ran == [0, 1]
    trained = head(maps(), None, make_targets([1, 1]))
    torch.testing.assert_close(early.logits[0], trained.logits[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(early.boxes_cxcywh_norm[0], trained.boxes_cxcywh_norm[1], rtol=0, atol=1e-5)


def test_prediction_is_the_last_decoder_layer_with_and_without_targets(make_targets: MakeTargets) -> None:
    head = small_head()
    alone, trained = head(maps()), head(maps(), None, make_targets([3, 1]))
    assert len(alone.logits) == 1
    for a, b in zip(predictions(alone), predictions(trained), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    for a, b in zip(head.decode(alone)[:4], head.decode(trained)[:4], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
    assert len(trained.logits) == 3
    assert (trained.logits[-1] - trained.logits[-2]).abs().max() > 0.01


def test_padding_is_as_if_it_were_not_there() -> None:
    head = small_head()
    unpadded = maps(1, 64, 64)
    padded = {
        name: torch.cat((x, torch.full((1, x.shape[1], x.shape[2], x.shape[3] // 2), 7.0)), 3)
        for name, x in unpadded.items()
    }
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[..., 64:] = True
    for a, b in zip(predictions(head(unpadded)), predictions(head(padded, mask)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert (head(padded).logits - head(unpadded).logits).abs().max() > 0.01


def test_fewer_tokens_than_queries() -> None:
    head = small_head(num_queries=100)
    output = head(maps(1, 32, 32))
    assert output.logits.shape == (1, 1, 16 + 4 + 1, 4)
    assert head.decode(output).scores.shape == (1, 21 * 4)
    assert head.object_limits() == [("num_queries", 100, False), ("max_detections", 300, False)]


@pytest.mark.parametrize("num_classes", [1, 3, 80])
def test_every_classifier_starts_at_the_focal_prior(num_classes: int) -> None:
    head = RTDETR(SPEC, num_classes, hidden_dim=16, decoder=RefiningDecoderOptions(num_heads=2, num_layers=2))
    for linear in (head.encoder_classes, *head.classes):
        assert linear.bias.tolist() == pytest.approx([-math.log(99)] * num_classes, abs=1e-6)
    assert torch.sigmoid(head.classes[0].bias[0]).item() == pytest.approx(0.01, abs=1e-7)
    assert head.denoising_classes.weight.shape == (num_classes + 1, 16)
    assert head.denoising_classes.weight[num_classes].abs().sum() == 0


def test_no_position_table_is_stored() -> None:
    assert list(small_head().buffers()) != []
    stored = set(small_head().state_dict()) - {name for name, _ in small_head().named_parameters()}
    assert {name.rpartition(".")[2] for name in stored} == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes is at least 1, not 0"),
        ({"num_queries": 0}, "num_queries is at least 1, not 0"),
        ({"decoder": RefiningDecoderOptions(num_heads=3)}, r"hidden_dim is a multiple of num_heads \(3\), not 16"),
        ({"decoder": RefiningDecoderOptions(num_points=[4, 4])}, r"one for each of 3 levels, not \[4, 4\]"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(**options)


@pytest.mark.parametrize("eval_layers", [0, 4])
def test_layers_that_there_are_not(eval_layers: int) -> None:
    with pytest.raises(ValueError, match=rf"eval_layers is between 1 and num_layers \(3\), not {eval_layers}"):
        replace(DECODER, eval_layers=eval_layers)


def test_auxiliary_levels_are_not_used() -> None:
    spec: Spec = {"c3": Level(6, 8), "raw": Level(9, 8, auxiliary=True)}
    assert RTDETR(spec, 2).projections.levels == ["c3"]
    with pytest.raises(ValueError, match="the head needs at least one level"):
        RTDETR({"raw": Level(9, 8, auxiliary=True)}, 2)


def test_each_level_has_its_own_number_of_points() -> None:
    head = small_head(decoder=replace(DECODER, num_points=[3, 6, 1]))
    assert head.layers[0].cross_attention.points == (3, 6, 1)
    assert head(maps()).logits.isfinite().all()
