"""Deformable DETR's two stages, and the losses of every variant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from deformable_detr_head import (
    REFINE,
    SPEC,
    TOKENS,
    TWO_STAGE,
    VARIANTS,
    fresh_head,
    maps,
    padding_mask,
    record_inputs,
    small_head,
)
from torch import Tensor
from torch.utils import _pytree as pytree

from boxwright.heads.deformable_detr import DeformableDETROutput
from boxwright.layers.deformable_transformer import encode_box_sine
from boxwright.queries import QueryLossWeights, normalize_targets
from boxwright.structures import Level, LossTotals, Targets

MakeTargets = Callable[..., list[Targets]]

every_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def from_every_token(output: DeformableDETROutput) -> tuple[Tensor, Tensor]:
    assert output.encoder_logits is not None
    assert output.encoder_boxes_cxcywh_norm is not None
    return output.encoder_logits, output.encoder_boxes_cxcywh_norm


def last(output: DeformableDETROutput) -> tuple[Tensor, Tensor]:
    return output.logits[-1], output.boxes_cxcywh_norm[-1]


def selected(output: DeformableDETROutput) -> tuple[Tensor, Tensor]:
    assert output.selected_logits is not None
    assert output.selected_boxes_cxcywh_norm is not None
    return output.selected_logits, output.selected_boxes_cxcywh_norm


def test_fresh_boxes_lie_around_every_cell(make_targets: MakeTargets) -> None:
    head = fresh_head(**TWO_STAGE)
    _, boxes = from_every_token(head(maps(), padding_mask(), make_targets([1, 1])))
    shapes = [(8, 12), (4, 6), (2, 3)]
    for image, content in enumerate(([(8, 12), (4, 6), (2, 3)], [(5, 8), (3, 4), (2, 2)])):
        expected = []
        for level, ((h, w), (rows, columns)) in enumerate(zip(shapes, content, strict=True)):
            side = 0.05 * 2**level
            for row in range(h):
                for column in range(w):
                    inside = row < rows and column < columns
                    box = [(column + 0.5) / columns, (row + 0.5) / rows, side, side]
                    # Padding starts from an infinite logit.
                    expected.append(box if inside else [1.0] * 4)
        torch.testing.assert_close(boxes[image], torch.tensor(expected), rtol=0, atol=1e-5)


def test_anchors_at_the_border_and_on_large_levels_are_not_valid(make_targets: MakeTargets) -> None:
    head = fresh_head({f"c{i}": Level(6, 2**i) for i in range(3, 9)}, **TWO_STAGE)
    features = {f"c{i}": torch.randn(1, 6, 1, 64 if i == 3 else 1) for i in range(3, 9)}
    _, boxes = from_every_token(head(features, None, make_targets([1])))
    # The centers of the first and the last of 64 cells lie within 1 % of the border.
    expected = [[(column + 0.5) / 64, 0.5, 0.05, 0.05] for column in range(1, 63)]
    torch.testing.assert_close(boxes[0, 1:63], torch.tensor(expected), rtol=0, atol=1e-5)
    assert boxes[0, [0, 63]].tolist() == [[1.0] * 4] * 2
    # 0.8 of the image on the fifth level, 1.6 on the sixth.
    torch.testing.assert_close(boxes[0, 67], torch.tensor([0.5, 0.5, 0.8, 0.8]), rtol=0, atol=1e-5)
    assert boxes[0, 68].tolist() == [1.0] * 4


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_the_best_by_the_logit_of_class_0_become_queries(padded: bool, make_targets: MakeTargets) -> None:
    head = small_head(**TWO_STAGE)
    inputs = record_inputs(head.layers[0])
    output = head(maps(), padding_mask() if padded else None, make_targets([1, 1]))
    logits, boxes = from_every_token(output)
    assert logits.shape == (2, TOKENS, 4)
    for image in range(2):
        best = sorted(range(TOKENS), key=lambda t: -logits[image, t, 0].item())[:12]
        assert best != sorted(range(TOKENS), key=lambda t: -logits[image, t].max().item())[:12]
        for best_of, every in zip(selected(output), (logits, boxes), strict=True):
            torch.testing.assert_close(best_of[image], every[image, best], rtol=0, atol=1e-6)
    content, positions, reference = inputs[0][:3]
    boxes = selected(output)[1].detach()
    encoded = head.proposal_queries(encode_box_sine(boxes, 8))
    torch.testing.assert_close(torch.cat((positions, content), -1), encoded, rtol=0, atol=1e-5)
    torch.testing.assert_close(reference[0, :, 0], boxes[0], rtol=0, atol=1e-6)
    assert not reference.requires_grad


def test_without_targets_the_box_head_sees_the_selected_only(make_targets: MakeTargets) -> None:
    head = small_head(**TWO_STAGE)
    calls = record_inputs(head.boxes[-1])
    with_mask = padding_mask()
    prediction, trained = head(maps(), with_mask), head(maps(), with_mask, make_targets([1, 1]))
    assert [call[0].shape[1] for call in calls] == [12, TOKENS]
    assert prediction.encoder_logits is None
    assert prediction.encoder_boxes_cxcywh_norm is None
    pairs = zip((*selected(prediction), *last(prediction)), (*selected(trained), *last(trained)), strict=True)
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


def test_as_published_all_is_computed_everywhere() -> None:
    head = small_head(**TWO_STAGE)
    ours = last(head(maps()))
    head.count_as_published = True
    published = head(maps())
    assert from_every_token(published)[1].shape == (2, TOKENS, 4)
    assert len(published.logits) == 3
    for one, other in zip(ours, last(published), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_there_can_be_fewer_tokens_than_queries(make_targets: MakeTargets) -> None:
    head = small_head(num_queries=300, **TWO_STAGE)
    output = head(maps(), None, make_targets([1, 1]))
    assert output.logits.shape == (3, 2, TOKENS, 4)


def test_tokens_are_trained_on_objects_of_any_class_as_if_of_the_first(make_targets: MakeTargets) -> None:
    head, targets = small_head(**TWO_STAGE), make_targets([3, 1])
    output = head(maps(), None, targets)
    others = [target._replace(labels=(target.labels + 1) % 4) for target in targets]
    zeros = [target._replace(labels=torch.zeros_like(target.labels)) for target in targets]
    ours, same = head.loss(output, targets), head.loss(output, others)
    assert ours["focal_encoder"] == same["focal_encoder"]
    assert ours["focal"] != same["focal"]
    logits, boxes = from_every_token(output)
    expected = head.criterion(logits[None], boxes[None], normalize_targets(zeros), LossTotals.of(targets))
    for name, value in expected.items():
        torch.testing.assert_close(ours[f"{name}_encoder"], value[0], rtol=0, atol=0)


@every_variant
def test_names_of_the_losses(options: dict[str, bool], make_targets: MakeTargets) -> None:
    head, targets = small_head(**options), make_targets([3, 1])
    losses = head.loss(head(maps(), None, targets), targets)
    suffixes = ["_0", "_1", "", *(["_encoder"] if options == TWO_STAGE else [])]
    assert list(losses) == [
        f"{term}{suffix}"
        for group in (suffixes[:3], suffixes[3:])
        for term in ("focal", "l1", "giou")
        for suffix in group
    ]


def test_weights_of_the_losses(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    plain = small_head(loss_weights=QueryLossWeights(class_weight=1.0, l1_weight=1.0, giou_weight=1.0))
    output = plain(maps(), None, targets)
    once, weighted = plain.loss(output, targets), small_head().loss(output, targets)
    for name, value in once.items():
        factor = {"focal": 2, "l1": 5, "giou": 2}[name.split("_")[0]]
        torch.testing.assert_close(weighted[name], factor * value, rtol=1e-5, atol=0)


def test_without_auxiliary_losses_the_last_layer_alone_is_trained(make_targets: MakeTargets) -> None:
    targets = make_targets([3, 1])
    head, full = small_head(auxiliary_losses=False), small_head()
    losses = head.loss(head(maps(), None, targets), targets)
    assert list(losses) == ["focal", "l1", "giou"]
    every = full.loss(full(maps(), None, targets), targets)
    for name, value in losses.items():
        torch.testing.assert_close(value, every[name], rtol=1e-5, atol=0)


@every_variant
@pytest.mark.parametrize("counts", [[3, 1], [2, 0], [0, 0]], ids=str)
def test_every_parameter_is_trained_whatever_the_batch(
    options: dict[str, bool], counts: list[int], make_targets: MakeTargets
) -> None:
    head, targets = small_head(**options).train(), make_targets(counts)
    losses = head.loss(head(maps(), padding_mask(), targets), targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, f"{name} is never reached"
        assert parameter.grad.isfinite().all(), name
    if sum(counts):
        assert all(parameter.grad.abs().max() > 0 for parameter in head.parameters() if parameter.grad is not None)


@every_variant
def test_output_has_one_structure_in_training_and_in_evaluation(
    options: dict[str, bool], make_targets: MakeTargets
) -> None:
    head = small_head(**options)
    for targets in (None, make_targets([2, 1])):
        training, evaluation = head.train()(maps(), None, targets), head.eval()(maps(), None, targets)
        assert pytree.tree_structure(training) == pytree.tree_structure(evaluation)


def test_quality_of_the_selection_is_that_of_the_first_class(make_targets: MakeTargets) -> None:
    head, targets = small_head(**TWO_STAGE), make_targets([1, 1])
    output = head(maps(), None, targets)
    logits, boxes = torch.full((2, 12, 4), -5.0), torch.full((2, 12, 4), 0.1)
    logits[0, 3, 0], logits[1, 5, 0], logits[1, 6, 2] = 5, 5, 5
    boxes[0, 3] = normalize_targets(targets)[0].boxes_cxcywh_norm[0]
    output = output._replace(selected_logits=logits, selected_boxes_cxcywh_norm=boxes)
    assert head.selection_quality(output, targets) == (24, 2, 1)
    assert small_head(**REFINE).selection_quality(small_head(**REFINE)(maps()), targets) is None


def test_two_stages_export_with_a_free_batch() -> None:
    head = small_head(**TWO_STAGE).requires_grad_(False)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(head, (maps(),), dynamic_shapes=({name: {0: batch} for name in SPEC},))
    alone = {name: level[:1] for name, level in maps().items()}
    for features in (maps(), alone):
        for exported, eager in zip(last(program.module()(features)), last(head(features)), strict=True):
            torch.testing.assert_close(exported, eager, rtol=0, atol=1e-5)
