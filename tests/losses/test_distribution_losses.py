"""Losses of distributions over bins, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from boxwright.losses.distribution import distillation_loss, fine_grained_localization_loss


def test_localization_is_a_cross_entropy_with_two_bins() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    p = logits.softmax(-1)[0]
    loss = fine_grained_localization_loss(logits, torch.tensor([1]), torch.tensor([0.3], dtype=torch.float64))
    assert loss.item() == pytest.approx(-(0.7 * math.log(p[1]) + 0.3 * math.log(p[2])))


def test_distillation_is_a_divergence_of_softened_distributions() -> None:
    student = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[3.0, 0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    loss = distillation_loss(student, teacher, temperature=2.0)
    p, q = (teacher / 2).softmax(-1), (student / 2).softmax(-1)
    assert loss.item() == pytest.approx((4 * (p * (p / q).log()).sum()).item())
    loss.sum().backward()
    assert teacher.grad is None, "the teacher is not trained"
    # The gradient of T^2 KL is T (q - p).
    torch.testing.assert_close(student.grad, 2 * (q - p).detach())


def test_nothing_is_lost_to_oneself() -> None:
    logits = torch.randn(5, 33, dtype=torch.float64)
    assert distillation_loss(logits, logits).abs().max() < 1e-12
