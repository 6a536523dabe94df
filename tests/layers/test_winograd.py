"""Convolutions in Winograd's form, against the plain one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.layers.conv_over_levels import winograd_conv3x3

# Whole tiles, cut tiles, and maps smaller than one.
SIZES = [(8, 12), (5, 9), (4, 3), (1, 2)]


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def plain(maps: list[Tensor], weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    return [F.conv2d(x, weight, bias, padding=1) for x in maps]


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_results_and_gradients_are_those_of_the_plain_form(with_bias: bool, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    inputs = [drawn(3, 2, 3, 3), *(drawn(2, 2, *size) for size in SIZES)]
    if with_bias:
        inputs.append(drawn(3))
    given = [x.to(memory_format=memory_format) if x.ndim == 4 else x for x in inputs]
    weight, maps, bias = given[0], given[1:5], given[5] if with_bias else None
    ours, expected = winograd_conv3x3(maps, weight, bias), plain(maps, weight, bias)
    directions = [torch.randn_like(x) for x in expected]
    gradients = [torch.autograd.grad(outputs, inputs, directions) for outputs in (ours, expected)]
    for own, other in zip([*ours, *gradients[0]], [*expected, *gradients[1]], strict=True):
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)


def test_gradients_are_finite_differences() -> None:
    torch.manual_seed(0)
    inputs = (drawn(2, 1, 3, 3), drawn(2), drawn(1, 1, 5, 2), drawn(1, 1, 2, 2))
    assert torch.autograd.gradcheck(lambda weight, bias, *maps: tuple(winograd_conv3x3(maps, weight, bias)), inputs)


def test_maps_need_no_gradient() -> None:
    weight, x = drawn(3, 2, 3, 3), torch.randn(1, 2, 4, 4, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(winograd_conv3x3([x], weight, None)[0].sum(), weight)
    (expected,) = torch.autograd.grad(F.conv2d(x, weight, padding=1).sum(), weight)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)


def test_rounding_in_float32() -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(128, 256, 3, 3) * 0.02, torch.randn(1, 256, 16, 16)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd_conv3x3([x], weight, None)[0] - exact).norm() / exact.norm()
    assert error < 4e-6
