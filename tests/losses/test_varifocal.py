"""Varifocal loss."""

from __future__ import annotations

import math

import pytest
import torch

from boxwright.losses.varifocal import varifocal_loss


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    positive = torch.rand(4, 6, generator=generator) < 0.3
    quality = torch.where(positive, torch.rand(4, 6, generator=generator, dtype=torch.float64), 0.0)
    assert 3 < positive.sum() < 12
    return logits, quality, positive


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (0.2, 0.5)])
def test_positives_weigh_their_iou_and_negatives_alpha_p_to_the_gamma(alpha: float, gamma: float) -> None:
    logits, quality, positive = example()
    loss = varifocal_loss(logits, quality, positive, alpha=alpha, gamma=gamma)
    for i, j in torch.cartesian_prod(torch.arange(4), torch.arange(6)).tolist():
        p, q = 1 / (1 + math.exp(-logits[i, j])), quality[i, j].item()
        if positive[i, j]:
            expected = q * -(q * math.log(p) + (1 - q) * math.log(1 - p))
        else:
            expected = alpha * p**gamma * -math.log(1 - p)
        assert loss[i, j].item() == pytest.approx(expected, rel=1e-10)


def test_defaults_are_those_of_rtdetr() -> None:
    loss = varifocal_loss(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    assert loss.item() == pytest.approx(0.75 * 0.25 * math.log(2), rel=1e-6)


def test_no_gradient_passes_through_the_weight() -> None:
    logits, quality, positive = example()
    logits.requires_grad_()
    varifocal_loss(logits, quality, positive).sum().backward()
    p = logits.detach().sigmoid()
    weight = torch.where(positive, quality, 0.75 * p**2)
    assert logits.grad is not None
    # The derivative of BCE with logits is p - target.
    torch.testing.assert_close(logits.grad, weight * (p - quality), rtol=1e-10, atol=0)


def test_a_match_that_does_not_overlap_weighs_nothing() -> None:
    loss = varifocal_loss(torch.tensor([[2.0]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert loss.item() == 0


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[200.0, -200.0, 200.0, -200.0]], requires_grad=True)
    positive = torch.tensor([[True, True, False, False]])
    loss = varifocal_loss(logits, torch.tensor([[0.5, 0.5, 0.0, 0.0]]), positive)
    torch.testing.assert_close(loss, torch.tensor([[50.0, 50.0, 150.0, 0.0]]))
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
