"""The class losses and their totals, against torchvision, torch and loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor

from boxwright.losses.focal import sigmoid_focal_loss
from boxwright.queries.class_losses import CrossEntropyLoss, FocalLoss, MatchedQueries, VarifocalLoss
from boxwright.structures import LossTotals
from part_checks import SPEC, build, maps

LOSSES = {"focal": "focal", "varifocal": "varifocal", "mal": "matchability", "iabce": "iou_aware"}
"""Options, and the names of their terms."""

LAYERS, IMAGES, QUERIES, LOGITS = 2, 3, 5, 4


@pytest.fixture
def logits() -> Tensor:
    shape = (LAYERS, IMAGES, QUERIES, LOGITS)
    return 2 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def matched() -> MatchedQueries:
    """Match two objects in the first image and one in the last, in both layers."""
    layer, image, query, label = ([0, 0, 0, 1, 1, 1], [0, 0, 2, 0, 0, 2], [1, 3, 0, 2, 4, 0], [0, 2, 1, 0, 2, 1])
    overlap = torch.tensor([0.9, 0.2, 0.5, 0.0, 1.0, 0.3], dtype=torch.float64)
    return MatchedQueries(*(torch.tensor(index) for index in (layer, image, query, label)), overlap)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5)])
def test_focal_loss_is_that_of_torchvision(logits: Tensor, alpha: float, gamma: float) -> None:
    target = (logits > 1).double()
    expected = torchvision.ops.sigmoid_focal_loss(logits, target, alpha, gamma)
    torch.testing.assert_close(
        sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma), expected, rtol=1e-10, atol=1e-14
    )


def test_focal_loss_over_queries(logits: Tensor, matched: MatchedQueries) -> None:
    target = torch.zeros_like(logits)
    for layer, image, query, label in zip(*(index.tolist() for index in matched[:4]), strict=True):
        target[layer, image, query, label] = 1
    expected = torchvision.ops.sigmoid_focal_loss(logits, target, 0.3, 1.5).sum((1, 2, 3)) / (3 * 2)
    loss = FocalLoss(0.3, 1.5)(logits, matched, LossTotals(3, IMAGES), groups=2)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)


def test_alpha_and_gamma_reach_the_varifocal_loss(logits: Tensor) -> None:
    none = MatchedQueries(*(torch.zeros(0, dtype=torch.int64) for _ in range(4)), torch.zeros(0))
    expected = (0.3 * logits.sigmoid() ** 1.5 * F.softplus(logits)).sum((1, 2, 3))
    torch.testing.assert_close(
        VarifocalLoss(0.3, 1.5)(logits, none, LossTotals(0, IMAGES)), expected, rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("weight", [0.1, 0.7])
def test_cross_entropy_is_the_weighted_mean_of_torch(logits: Tensor, matched: MatchedQueries, weight: float) -> None:
    labels = torch.full((LAYERS, IMAGES, QUERIES), LOGITS - 1)
    for layer, image, query, label in zip(*(index.tolist() for index in matched[:4]), strict=True):
        labels[layer, image, query] = label
    weights = torch.ones(LOGITS, dtype=torch.float64)
    weights[-1] = weight
    expected = [F.cross_entropy(x.flatten(0, 1), y.flatten(), weights) for x, y in zip(logits, labels, strict=True)]
    loss = CrossEntropyLoss(weight)(logits, matched, LossTotals(3, IMAGES))
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-10, atol=0)


def test_cross_entropy_does_not_depend_on_how_images_are_spread(logits: Tensor, matched: MatchedQueries) -> None:
    loss = CrossEntropyLoss()
    whole = loss(logits, matched, LossTotals(3, IMAGES))

    def part(first: int, stop: int, totals: LossTotals) -> Tensor:
        here = (matched.image >= first) & (matched.image < stop)
        matches = MatchedQueries(*(index[here] for index in matched))
        return loss(logits[:, first:stop], matches._replace(image=matches.image - first), totals)

    summed = part(0, 2, LossTotals(3, IMAGES)) + part(2, 3, LossTotals(3, IMAGES))
    torch.testing.assert_close(summed, whole, rtol=1e-10, atol=0)
    averaged = (part(0, 2, LossTotals(3, IMAGES, 2)) + part(2, 3, LossTotals(3, IMAGES, 2))) / 2
    torch.testing.assert_close(averaged, whole, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", ["rtdetr", "dfine", "dino", "deformable_detr"])
def test_every_head_that_scores_classes_alone_has_any_of_the_losses(
    name: str, make_targets: Callable[..., Any]
) -> None:
    targets, values = make_targets([2, 1], size=(60, 90)), {}
    for loss in LOSSES:
        head = build("heads", name, SPEC, 5, supervision={"class_loss": loss}).eval()
        terms = head.loss(head(maps(60, 90), None, targets), targets)
        assert set(LOSSES.values()) & set(terms) == {LOSSES[loss]}
        values[loss] = terms[LOSSES[loss]].item()
    assert len(set(values.values())) == len(LOSSES)
    with pytest.raises(ValueError, match=r"class_loss: expected one of focal, varifocal, mal, iabce; got 'bce'"):
        build("heads", name, SPEC, 5, supervision={"class_loss": "bce"})
