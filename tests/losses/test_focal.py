"""Focal loss of many anchors with few objects, against the plain one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boxwright.losses.focal import sigmoid_focal_loss, summed_focal_loss, summed_focal_loss_of_levels


@pytest.fixture
def logits() -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(2, 9, 5, dtype=torch.float64)).requires_grad_()


@pytest.fixture
def labels() -> Tensor:
    return torch.randint(-1, 5, (2, 9), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def weights() -> Tensor:
    weights = torch.rand(2, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights[0, :3] = 0
    return weights


def plain(logits: Tensor, labels: Tensor, weights: Tensor, alpha: float, gamma: float) -> Tensor:
    target = torch.zeros_like(logits)
    image, anchor = torch.where(labels >= 0)
    target[image, anchor, labels[image, anchor]] = 1
    return (weights[..., None] * sigmoid_focal_loss(logits, target, alpha=alpha, gamma=gamma)).sum()


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.5), (1.0, 2.0), (0.0, 0.0)])
def test_value_and_gradient_are_those_of_the_plain_form(
    logits: Tensor, labels: Tensor, weights: Tensor, alpha: float, gamma: float
) -> None:
    assert (labels >= 0).any()
    assert (labels < 0).any()
    ours = summed_focal_loss(logits, labels, weights, alpha=alpha, gamma=gamma)
    expected = plain(logits, labels, weights, alpha, gamma)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(2 * loss, logits)[0] for loss in (ours, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_gradient_is_that_of_finite_differences(logits: Tensor, labels: Tensor, weights: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: summed_focal_loss(x, labels, weights, alpha=0.3, gamma=1.5), logits)


def test_anchors_without_weight_and_without_objects(logits: Tensor, labels: Tensor, weights: Tensor) -> None:
    (gradient,) = torch.autograd.grad(summed_focal_loss(logits, labels, weights), logits)
    assert (gradient[0, :3] == 0).all()
    background = torch.full_like(labels, -1)
    torch.testing.assert_close(
        summed_focal_loss(logits, background, weights), plain(logits, background, weights, 0.25, 2.0)
    )


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits(logit: float) -> None:
    logits = torch.full((1, 2), logit, requires_grad=True)
    loss = summed_focal_loss(logits, torch.tensor([0]), torch.ones(1))
    (gradient,) = torch.autograd.grad(loss, logits)
    # The wrong one of the two answers costs its logit.
    assert loss.item() == pytest.approx(200 * (0.25 if logit < 0 else 0.75))
    assert gradient[0].tolist() == pytest.approx([-0.25, 0.0] if logit < 0 else [0.0, 0.75])


def test_half_precision_is_left(labels: Tensor) -> None:
    logits = torch.zeros(2, 9, 5, dtype=torch.bfloat16, requires_grad=True)
    loss = summed_focal_loss(logits, labels, torch.ones(2, 9))
    assert loss.dtype == torch.float32
    loss.backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_levels_are_one_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, n, 3, generator=generator) for n in (4, 1)]
    labels = torch.tensor([[0, -1, 2, -1, 1], [-1, -1, 1, 0, -1]])
    weights = torch.rand(2, 5, generator=generator)
    together = torch.cat(levels, 1)
    for option, used in ((weights, weights), (None, torch.ones(2, 5))):
        torch.testing.assert_close(
            summed_focal_loss_of_levels(levels, labels, option, alpha=0.3, gamma=1.5),
            summed_focal_loss(together, labels, used, alpha=0.3, gamma=1.5),
        )
