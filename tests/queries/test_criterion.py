"""Losses of all layers, against loops over layers, images and pairs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from boxwright.queries import (
    HungarianMatcher,
    Matches,
    NormalizedTargets,
    QueryLossWeights,
    SetCriterion,
    VarifocalLoss,
    layer_suffixes,
    name_terms,
    normalize_targets,
)
from boxwright.structures import LossTotals, Targets

LAYERS, QUERIES, CLASSES = 3, 8, 4


def example(counts: list[int], seed: int = 0) -> tuple[Tensor, Tensor, list[NormalizedTargets]]:
    generator = torch.Generator().manual_seed(seed)

    def boxes(*shape: int) -> Tensor:
        return 0.2 + 0.4 * torch.rand(*shape, 4, generator=generator, dtype=torch.float64)

    logits = torch.randn(LAYERS, len(counts), QUERIES, CLASSES, generator=generator, dtype=torch.float64)
    targets = [NormalizedTargets(torch.randint(0, CLASSES, (n,), generator=generator), boxes(n)) for n in counts]
    return logits, boxes(LAYERS, len(counts), QUERIES), targets


def corners(boxes: Tensor) -> Tensor:
    return torchvision.ops.box_convert(boxes, "cxcywh", "xyxy")


def loop_over_pairs(
    logits: Tensor, boxes: Tensor, targets: list[NormalizedTargets], matches: Matches, normalizer: float
) -> dict[str, list[Tensor]]:
    """Compute RT-DETR's three losses of every layer with the published weights 1, 5 and 2."""
    labels = torch.cat([t.labels for t in targets])
    objects = torch.cat([t.boxes_cxcywh_norm for t in targets])
    out: dict[str, list[Tensor]] = {"varifocal": [], "l1": [], "giou": []}
    for layer in range(len(logits)):
        target = torch.zeros_like(logits[layer])
        weight = 0.75 * logits[layer].detach().sigmoid() ** 2
        l1, giou = logits.new_zeros(()), logits.new_zeros(())
        for at, image, query, n in zip(*(index.tolist() for index in matches), strict=True):
            if at != layer:
                continue
            ours, box = boxes[layer, image, query][None], objects[n][None]
            quality = torchvision.ops.box_iou(corners(ours), corners(box))[0, 0].detach()
            target[image, query, labels[n]] = weight[image, query, labels[n]] = quality
            l1 = l1 + (ours - box).abs().sum()
            giou = giou + 1 - torchvision.ops.generalized_box_iou(corners(ours), corners(box))[0, 0]
        classes = F.binary_cross_entropy_with_logits(logits[layer], target, weight, reduction="sum")
        for name, value in (("varifocal", classes), ("l1", 5 * l1), ("giou", 2 * giou)):
            out[name].append(value / normalizer)
    return out


@pytest.fixture
def criterion() -> SetCriterion:
    return SetCriterion(class_loss=VarifocalLoss(), matcher=HungarianMatcher())


@pytest.mark.parametrize("counts", [[3, 1, 2], [5, 0], [0, 0]])
def test_equals_loops(criterion: SetCriterion, counts: list[int]) -> None:
    logits, boxes, targets = example(counts)
    matches = HungarianMatcher()(logits, boxes, targets)
    losses = criterion(logits, boxes, targets, LossTotals(7, 3))
    expected = loop_over_pairs(logits, boxes, targets, matches, 7.0)
    for name, values in losses.items():
        torch.testing.assert_close(values, torch.stack(expected[name]), rtol=1e-10, atol=1e-12)
    assert (losses["varifocal"] > 0).all()
    assert bool((losses["l1"] > 0).all()) == bool(sum(counts))


def test_gradients_equal_those_of_loops(criterion: SetCriterion) -> None:
    logits, boxes, targets = example([3, 0, 4])
    logits.requires_grad_()
    boxes.requires_grad_()
    matches = HungarianMatcher()(logits, boxes, targets)
    ours = sum(values.sum() for values in criterion(logits, boxes, targets, LossTotals(7, 3)).values())
    expected = sum(torch.stack(v).sum() for v in loop_over_pairs(logits, boxes, targets, matches, 7.0).values())
    assert isinstance(ours, Tensor)
    assert isinstance(expected, Tensor)
    for a, b in zip(
        torch.autograd.grad(ours, (logits, boxes)), torch.autograd.grad(expected, (logits, boxes)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_given_matches_are_used(criterion: SetCriterion) -> None:
    logits, boxes, targets = example([2, 1])
    once = Matches(*(torch.tensor(index) for index in ([0, 0, 0], [0, 1, 0], [5, 6, 7], [1, 2, 0])))
    matches = once.repeat(LAYERS)
    losses = criterion(logits, boxes, targets, LossTotals(2, len(targets)), matches)
    expected = loop_over_pairs(logits, boxes, targets, matches, 2.0)
    for name, values in losses.items():
        torch.testing.assert_close(values, torch.stack(expected[name]), rtol=1e-10, atol=1e-12)


def test_an_object_may_be_matched_several_times_in_a_layer(criterion: SetCriterion) -> None:
    # So are the objects of denoising, once per group.
    logits, boxes, targets = example([1])
    matches = Matches(*(torch.tensor(index) for index in ([1, 1], [0, 0], [2, 5], [0, 0])))
    losses = criterion(logits, boxes, targets, LossTotals(2, len(targets)), matches)
    expected = loop_over_pairs(logits, boxes, targets, matches, 2.0)
    for name, values in losses.items():
        torch.testing.assert_close(values, torch.stack(expected[name]), rtol=1e-10, atol=1e-12)
    assert losses["l1"][0] == losses["l1"][2] == 0


def test_layers_are_independent(criterion: SetCriterion) -> None:
    logits, boxes, targets = example([3, 2])
    before = criterion(logits, boxes, targets, LossTotals(5, 2))
    logits[1] += 1.5
    boxes[1] *= 0.5
    after = criterion(logits, boxes, targets, LossTotals(5, 2))
    for name in before:
        torch.testing.assert_close(after[name][::2], before[name][::2], rtol=0, atol=0)
        assert (after[name][1] - before[name][1]).abs() > 1e-3


def test_everything_is_divided_by_the_objects_of_the_step(criterion: SetCriterion) -> None:
    logits, boxes, targets = example([3, 2])
    one = criterion(logits, boxes, targets, LossTotals(1, 2))
    for totals, factor in ((LossTotals(3, 2), 3.0), (LossTotals(6, 9, processes=4), 1.5), (LossTotals(0, 2), 1.0)):
        for name, values in criterion(logits, boxes, targets, totals).items():
            torch.testing.assert_close(one[name] / factor, values, rtol=1e-12, atol=0)
    for name, values in criterion(logits, boxes, targets, LossTotals(1, 2), groups=4).items():
        torch.testing.assert_close(one[name] / 4, values, rtol=1e-12, atol=0)


def test_every_weight_reaches_its_term() -> None:
    logits, boxes, targets = example([3, 2])
    before, after = (
        SetCriterion(VarifocalLoss(), HungarianMatcher(), weights)(logits, boxes, targets, LossTotals(5, 2))
        for weights in (
            QueryLossWeights(class_weight=1.0, l1_weight=1.0, giou_weight=1.0),
            QueryLossWeights(class_weight=3.0, l1_weight=7.0, giou_weight=11.0),
        )
    )
    for name, factor in {"varifocal": 3, "l1": 7, "giou": 11}.items():
        torch.testing.assert_close(factor * before[name], after[name], rtol=1e-12, atol=0)


def test_terms_are_named_by_loss_and_layer() -> None:
    losses = {"focal": torch.tensor([1.0, 2.0]), "l1": torch.tensor([3.0, 4.0])}
    assert name_terms(losses, layer_suffixes(2)) == {"focal_0": 1, "focal": 2, "l1_0": 3, "l1": 4}


def test_under_autocast_losses_are_float32_and_exact(criterion: SetCriterion) -> None:
    logits, boxes, targets = example([3, 2])
    logits, boxes = logits.float(), boxes.float()
    targets = [NormalizedTargets(t.labels, t.boxes_cxcywh_norm.float()) for t in targets]
    plain = criterion(logits, boxes, targets, LossTotals(5, 2))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = criterion(logits, boxes, targets, LossTotals(5, 2))
    for name, values in plain.items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], values, rtol=1e-6, atol=0)


def test_targets_are_relative_to_the_image_and_not_to_the_padded_input() -> None:
    target = Targets(torch.tensor([2]), torch.tensor([[10.0, 20.0, 50.0, 60.0]]), (80, 200))
    (normalized,) = normalize_targets([target])
    expected = torch.tensor([[30 / 200, 40 / 80, 40 / 200, 40 / 80]])
    torch.testing.assert_close(normalized.boxes_cxcywh_norm, expected, rtol=0, atol=1e-7)
    assert normalized.labels.tolist() == [2]
