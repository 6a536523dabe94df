"""Dropout on a CPU."""

from __future__ import annotations

import pytest
import torch

from boxwright.layers.dropout import Dropout, relu_dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_fraction_and_scale_of_nonzero_elements(p: float) -> None:
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(1000, 1001))
    nonzero = y != 0
    # Within five standard deviations of a million draws.
    assert nonzero.float().mean().item() == pytest.approx(1 - p, abs=5 * (p * (1 - p) / 1e6) ** 0.5)
    torch.testing.assert_close(y[nonzero], torch.full_like(y[nonzero], 1 / (1 - p)), rtol=1e-4, atol=0)


def test_elements_of_one_draw_are_independent() -> None:
    torch.manual_seed(0)
    nonzero = (Dropout(0.5)(torch.ones(250_000, 4)) != 0).float()
    correlations = torch.corrcoef(nonzero.T) - torch.eye(4)
    assert correlations.abs().max() < 5 / 500
    in_a_row = torch.corrcoef(torch.stack((nonzero.flatten()[:-4], nonzero.flatten()[4:])))
    assert in_a_row[0, 1].abs() < 5 / 1000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradient_is_dropped_where_the_value_is(dtype: torch.dtype) -> None:
    x = torch.ones(7, 3, dtype=dtype, requires_grad=True)
    y = Dropout(0.5)(x)
    y.backward(torch.full_like(y, 2))
    assert y.dtype == dtype
    assert x.grad is not None
    torch.testing.assert_close(x.grad, 2 * y.detach(), rtol=0, atol=0)


def test_equal_seeds_drop_equal_elements() -> None:
    x, drop = torch.ones(100), Dropout(0.3)
    torch.manual_seed(3)
    one, other = drop(x), drop(x)
    torch.manual_seed(3)
    torch.testing.assert_close(drop(x), one, rtol=0, atol=0)
    assert (one != other).any()


def test_nothing_is_dropped_in_evaluation_or_at_probability_0_and_all_at_1() -> None:
    x = torch.randn(5, 5)
    assert Dropout(0.5).eval()(x) is x
    torch.testing.assert_close(Dropout(0.0)(x), x, rtol=0, atol=0)
    assert (Dropout(1.0)(x) == 0).all()
    assert Dropout(0.5)(torch.zeros(0, 3)).shape == (0, 3)


def test_relu_and_dropout_in_one_are_both_in_a_row() -> None:
    linear, x = torch.nn.Linear(6, 500), torch.randn(2, 10, 6)
    plain = linear(x)
    torch.manual_seed(0)
    y = relu_dropout(linear(x), 0.25, training=True)
    nonzero = y > 0
    torch.testing.assert_close(y[nonzero], plain[nonzero] / 0.75, rtol=1e-6, atol=0)
    assert (y[~nonzero] == 0).all()
    fraction = nonzero.sum() / (plain > 0).sum()
    assert fraction.item() == pytest.approx(0.75, abs=0.03)

    direction = torch.randn_like(y)
    ours = torch.autograd.grad((y * direction).sum(), linear.weight)[0]
    expected = torch.autograd.grad((plain.relu() * nonzero / 0.75 * direction).sum(), linear.weight)[0]
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("p", "training"), [(0.25, False), (0.0, True)])
def test_relu_alone_where_nothing_is_dropped(p: float, training: bool) -> None:
    x = torch.randn(3, 4)
    torch.testing.assert_close(relu_dropout(x.clone(), p, training=training), x.relu(), rtol=0, atol=0)


def test_without_gradient_relu_and_dropout_work_too() -> None:
    with torch.no_grad():
        y = relu_dropout(torch.ones(100, 100), 0.5, training=True)
    assert set(y.unique().tolist()) == {0.0, 2.0}
