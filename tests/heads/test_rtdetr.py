"""RT-DETR's head: selection, decoding, losses, detections; by the numbers of the traps that others fell into."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from boxwright.detector import Detector
from boxwright.heads.rtdetr import RTDETR
from boxwright.losses.matching import HungarianMatcher
from boxwright.losses.set_criterion import normalized_targets
from boxwright.ops.boxes import inverse_sigmoid
from boxwright.structures import Features, ImageSize, Level, LossTotals, Spec, Targets

MakeDetector = Callable[..., Detector]
MakeTargets = Callable[..., list[Targets]]

SPEC: Spec = {"c3": Level(6, 8), "c4": Level(8, 16), "c5": Level(10, 32)}


def small_head(num_classes: int = 4, **options: float | str) -> RTDETR:
    defaults = {"hidden_dim": 16, "num_heads": 2, "feedforward_dim": 32, "num_layers": 3, "num_queries": 12}
    torch.manual_seed(0)
    head = RTDETR(SPEC, num_classes, **(defaults | {"num_denoising": 8} | options))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            if name != "denoising_classes.weight":
                parameter.add_(0.1 * torch.randn_like(parameter))
    return head.eval()


def maps(batch: int = 2, height: int = 64, width: int = 64) -> Features:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, level.channels, height // level.stride, width // level.stride, generator=generator)
        for name, level in SPEC.items()
    }


def terms(head: RTDETR, targets: list[Targets], seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return head.loss(head(maps(len(targets)), None, targets), targets)


def gradients(module: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    module.zero_grad(set_to_none=True)
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


# What the loss is made of.


def test_terms_are_one_per_layer_the_encoder_and_denoising(make_targets: MakeTargets) -> None:
    own = [f"{term}{suffix}" for term in ("varifocal", "l1", "giou") for suffix in ("_0", "_1", "", "_encoder")]
    noised = [f"{term}_denoising_{i}" for term in ("varifocal", "l1", "giou") for i in range(3)]
    assert sorted(terms(small_head(), make_targets([2, 1]))) == sorted(own + noised)
    assert sorted(terms(small_head(num_denoising=0), make_targets([2, 1]))) == sorted(own)


def test_denoising_changes_no_other_term(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    on, off = terms(small_head(), targets), terms(small_head(num_denoising=0), targets)
    for name, value in off.items():
        assert value.item() > 0
        torch.testing.assert_close(on[name], value, rtol=1e-5, atol=1e-6)


def test_main_loss_is_over_the_matching_queries_only(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([3, 1])
    output = head(maps(), None, targets)
    assert output.logits.shape[:3] == (3, 2, 12)
    assert output.selected_logits.shape[:2] == (2, 12)
    assert output.noised_logits.shape[:3] == (3, 2, 2 * 3 * 2)
    before = head.loss(output, targets)
    after = head.loss(output._replace(noised_logits=output.noised_logits + 1), targets)
    for name in before:
        assert (before[name] == after[name]) == (not name.startswith("varifocal_denoising"))


def test_denoising_terms_are_divided_by_the_groups_too(make_targets: MakeTargets) -> None:
    head, targets = small_head(), make_targets([3, 1])
    output = head(maps(), None, targets)
    assert output.denoising is not None
    assert output.denoising.num_groups == 2
    wanted = torch.cat([t.boxes_cxcywh_norm for t in normalized_targets(targets)])
    pairs = output.denoising.matches
    found = output.noised_boxes_cxcywh_norm[1, pairs.image, pairs.query]
    expected = 5 * (found - wanted[pairs.object]).abs().sum() / (4 * 2)
    torch.testing.assert_close(head.loss(output, targets)["l1_denoising_1"], expected, rtol=1e-5, atol=0)


def test_a_batch_without_any_object_trains_every_parameter(make_targets: MakeTargets) -> None:
    head, targets = small_head().train(), make_targets([0, 0])
    loss = sum(terms(head, targets).values())
    assert isinstance(loss, Tensor)
    assert loss.isfinite()
    grads = gradients(head, loss)
    assert set(grads) == {name for name, _ in head.named_parameters()}
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads["classes.2.bias"].abs().sum() > 0


def test_gradient_of_four_pictures_is_the_sum_of_two_and_two(
    make_detector: MakeDetector, make_targets: MakeTargets
) -> None:
    # Norms in evaluation: their statistics would tie the pictures of a batch together.
    detector = make_detector(num_denoising=0).double().eval()
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = [t._replace(boxes=t.boxes.double()) for t in make_targets([3, 0, 1, 5])]

    def loss(which: slice, totals: LossTotals | None) -> Tensor:
        output = detector(images[which], None, targets[which])
        total = sum(detector.loss(output, targets[which], totals).values())
        assert isinstance(total, Tensor)
        return total

    whole = gradients(detector, loss(slice(0, 4), None))
    parts = [gradients(detector, loss(which, LossTotals(9, 4))) for which in (slice(0, 2), slice(2, 4))]
    # Two processes, whose gradients are averaged, each divide by the objects per process.
    averaged = [gradients(detector, loss(which, LossTotals(9, 4, processes=2))) for which in (slice(0, 2), slice(2, 4))]
    for name, grad in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], grad, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close((averaged[0][name] + averaged[1][name]) / 2, grad, rtol=1e-8, atol=1e-10)


def test_without_totals_sums_are_divided_by_those_of_the_batch(make_targets: MakeTargets) -> None:
    head, targets = small_head(num_denoising=0), make_targets([3, 1])
    output = head(maps(), None, targets)
    by_default, by_one = head.loss(output, targets), head.loss(output, targets, LossTotals(1, 2))
    for name, value in by_default.items():
        torch.testing.assert_close(value * 4, by_one[name], rtol=1e-5, atol=0)
    none = make_targets([0, 0])
    torch.testing.assert_close(
        head.loss(output, none)["varifocal"], head.loss(output, none, LossTotals(1, 2))["varifocal"]
    )


def test_vanilla_selection_trains_the_encoders_scores_on_the_classes_alone(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    aware, vanilla = terms(small_head(), targets), terms(small_head(query_selection="vanilla"), targets)
    assert set(aware) ^ set(vanilla) == {"varifocal_encoder", "focal_encoder"}
    for name in set(aware) & set(vanilla):
        torch.testing.assert_close(aware[name], vanilla[name], rtol=1e-6, atol=0)
    head = small_head()
    output, wanted = head(maps(), None, targets), normalized_targets(targets)
    selected = output.selected_logits[None], output.selected_boxes_cxcywh_norm[None]
    target = torch.zeros_like(selected[0])
    for image, query, found in list(zip(*(x.tolist() for x in HungarianMatcher()(*selected, wanted)[1:]), strict=True)):
        target[0, image, query, torch.cat([t.labels for t in wanted])[found]] = 1
    expected = sigmoid_focal_loss(selected[0], target, 0.25, 2.0).sum() / 4
    torch.testing.assert_close(vanilla["focal_encoder"], expected, rtol=1e-5, atol=0)


def test_loss_weights_reach_their_terms(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    plain = terms(small_head(), targets)
    weighted = terms(small_head(class_weight=2.0, l1_weight=15.0, giou_weight=14.0), targets)
    factors = {"varifocal": 2, "l1": 3, "giou": 7}
    for name, value in plain.items():
        torch.testing.assert_close(weighted[name], factors[name.partition("_")[0]] * value, rtol=1e-5, atol=1e-7)


def test_noise_options_reach_the_denoising_queries(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    exact = small_head(label_noise=0.0, box_noise=0.0)(maps(), None, targets).denoising
    assert exact is not None
    wanted = normalized_targets(targets)[0]
    assert (exact.labels[0, :3] == wanted.labels).all()
    torch.testing.assert_close(exact.boxes_cxcywh_norm[0, :3], wanted.boxes_cxcywh_norm, rtol=0, atol=1e-6)


# What the decoder computes.


def test_boxes_and_losses_are_float32_under_autocast(make_detector: MakeDetector, make_targets: MakeTargets) -> None:
    detector, targets = make_detector().train(), make_targets([3, 1])
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    corrections: list[torch.dtype] = []
    for mlp in (detector.head.encoder_boxes, *detector.head.boxes):
        mlp.register_forward_hook(lambda _, __, out: corrections.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        output = detector(images, None, targets)
        losses = detector.loss(output, targets)
        (detections, _) = detector.postprocess(output, [ImageSize(64, 64, 64, 64)] * 2)
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
    head.as_published = True
    published = head(maps())
    assert seen[1] == (2, 64 + 16 + 4, 16)
    torch.testing.assert_close(ours.boxes_cxcywh_norm, published.boxes_cxcywh_norm, rtol=0, atol=1e-5)


def test_queries_are_the_best_tokens() -> None:
    head, seen = small_head(), {}
    head.encoder_classes.register_forward_hook(lambda _, __, out: seen.update(scores=out))
    head.encoder_boxes.register_forward_hook(lambda _, inputs, __: seen.update(chosen=inputs[0]))
    head.encoder_output.register_forward_hook(lambda _, __, out: seen.update(tokens=out))
    head(maps())
    best = seen["scores"].amax(-1)
    for image in range(2):
        order = sorted(range(84), key=lambda t: -best[image, t].item())[:12]
        torch.testing.assert_close(seen["chosen"][image], seen["tokens"][image, order], rtol=0, atol=0)


def test_fresh_boxes_are_the_anchors(make_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    head = RTDETR(SPEC, 2, hidden_dim=16, num_heads=2, num_layers=2, num_queries=84).eval()
    trained = head(maps(), None, make_targets([1, 1], num_classes=2))
    expected = []
    for level, cells in enumerate((8, 4, 2)):
        for row in range(cells):
            for column in range(cells):
                side = 0.05 * 2**level
                expected.append([(column + 0.5) / cells, (row + 0.5) / cells, side, side])
    # All 84 tokens are queries, in an order that the scores give.
    for layer in (*trained.boxes_cxcywh_norm, trained.selected_boxes_cxcywh_norm):
        for found in layer:
            distance = torch.cdist(found, torch.tensor(expected), p=1)
            assert distance.amin(1).max() < 1e-5
            assert sorted(distance.argmin(1).tolist()) == list(range(84))


def test_places_at_the_rim_are_not_usable(make_targets: MakeTargets) -> None:
    torch.manual_seed(0)
    spec: Spec = {"c3": Level(6, 8)}
    head = RTDETR(spec, 2, hidden_dim=16, num_heads=2, num_layers=1, num_queries=64).eval()
    # 64 cells in a row, all of them queries: the centres of the first and the last lie within 1 % of the border,
    # and start from an infinite logit.
    output = head({"c3": torch.randn(1, 6, 1, 64)}, None, make_targets([1], num_classes=2))
    starts = output.selected_boxes_cxcywh_norm[0]
    expected = [[(column + 0.5) / 64, 0.5, 0.05, 0.05] for column in range(1, 63)] + [[1.0] * 4] * 2
    torch.testing.assert_close(starts[starts[:, 0].argsort()], torch.tensor(expected), rtol=0, atol=1e-5)


def authors_boxes(head: RTDETR, features: Features, targets: list[Targets], twice: bool) -> list[Tensor]:
    """The authors' refinement, in a loop of our own around the modules of the head.

    Layer i corrects the box that layer i - 1 made, and is given it without gradient. What it puts out is the
    correction added to that box with gradient, if it looks forward twice.
    """
    start: dict[str, Tensor] = {}

    def catch(_: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Tensor]) -> None:
        names = ("content", "positions", "reference", "memory", "shapes")
        start.update(zip(names, inputs, strict=True), **options)

    handle = head.layers[0].register_forward_pre_hook(catch, with_kwargs=True)
    torch.manual_seed(0)
    head(features, None, targets)
    handle.remove()
    content, given = start["content"], start["reference"][:, :, 0]
    previous, out = given, []
    for layer, box_head in zip(head.layers, head.boxes, strict=True):
        content = layer(
            content,
            head.query_positions(given),
            given[:, :, None],
            start["memory"],
            start["shapes"],
            blocked=start["blocked"],
        )
        correction = box_head(content)
        made = torch.sigmoid(correction + inverse_sigmoid(given))
        out.append(torch.sigmoid(correction + inverse_sigmoid(previous)) if twice else made)
        previous, given = made, made.detach()
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
    found = {}
    for twice in (True, False):
        head = small_head(look_forward_twice=twice)
        torch.manual_seed(0)
        output = head(maps(), None, targets)
        (grad,) = torch.autograd.grad(output.boxes_cxcywh_norm[1].sum(), head.boxes[0].layers[-1].bias)
        found[twice] = (output, grad)
    torch.testing.assert_close(found[True][0].boxes_cxcywh_norm, found[False][0].boxes_cxcywh_norm, rtol=0, atol=1e-6)
    # Content is passed on with its gradient, but the first layer's box head is reached through boxes only.
    assert found[True][1].abs().min() > 1e-3
    assert found[False][1].abs().max() == 0


def test_prediction_uses_the_layers_it_is_told_to(make_targets: MakeTargets) -> None:
    head = small_head(eval_layers=2)
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
    for a, b in zip(alone.prediction(), trained.prediction(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert len(trained.logits) == 3
    assert (trained.prediction()[0] - trained.logits[-2]).abs().max() > 0.01


def test_padding_is_as_if_it_were_not_there() -> None:
    head = small_head()
    content = maps(1, 64, 64)
    padded = {
        name: torch.cat((x, torch.full((1, x.shape[1], x.shape[2], x.shape[3] // 2), 7.0)), 3)
        for name, x in content.items()
    }
    mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[..., 64:] = True
    for a, b in zip(head(content).prediction(), head(padded, mask).prediction(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
    assert (head(padded).prediction()[0] - head(content).prediction()[0]).abs().max() > 0.01


def test_fewer_tokens_than_queries() -> None:
    head = small_head(num_queries=100)
    output = head(maps(1, 32, 32))
    assert output.logits.shape == (1, 1, 16 + 4 + 1, 4)
    assert len(head.postprocess(output, [ImageSize(32, 32, 32, 32)])[0].scores) == 21 * 4


# How it starts.


@pytest.mark.parametrize("num_classes", [1, 3, 80])
def test_every_classifier_starts_at_the_focal_prior(num_classes: int) -> None:
    head = RTDETR(SPEC, num_classes, hidden_dim=16, num_heads=2, num_layers=2)
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
        ({"eval_layers": 4}, r"eval_layers is between 1 and num_layers \(3\), not 4"),
        ({"eval_layers": 0}, "eval_layers is between 1"),
        ({"num_classes": 0}, "num_classes is at least 1, not 0"),
        ({"num_queries": 0}, "num_queries is at least 1, not 0"),
        ({"num_layers": 0}, "num_layers is at least 1, not 0"),
        ({"num_heads": 3}, r"hidden_dim is a multiple of num_heads \(3\), not 16"),
        ({"num_heads": 0}, "num_heads is at least 1, not 0"),
    ],
)
def test_what_the_constructor_refuses(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_head(**options)


def test_auxiliary_levels_are_not_used() -> None:
    spec: Spec = {"c3": Level(6, 8), "raw": Level(9, 8, auxiliary=True)}
    assert RTDETR(spec, 2, hidden_dim=16, num_heads=2, num_layers=1).levels == ["c3"]
    with pytest.raises(ValueError, match="the head needs at least one level"):
        RTDETR({"raw": Level(9, 8, auxiliary=True)}, 2)
