"""The non-local block: equal to its formula, the identity at first, maps of few cells."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from boxwright.layers.non_local_block import NonLocalBlock


def block(*, subsample: bool, channels: int = 6) -> NonLocalBlock:
    torch.manual_seed(0)
    layer = NonLocalBlock(channels, subsample=subsample).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def make_image(*size: int, channels: int = 6) -> Tensor:
    return torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(layer: NonLocalBlock, x: Tensor) -> Tensor:
    """Image by image; what is looked at, window by window."""
    height, width = x.shape[-2:]
    step = 2 if layer.subsample else 1
    sums = []
    for one in x:
        theta, phi, g = layer.embed(one[None])[0].chunk(3)
        corners = list(itertools.product(range(0, height, step), range(0, width, step)))
        seen = [
            torch.stack([part[:, i : i + step, j : j + step].amax((1, 2)) for i, j in corners]) for part in (phi, g)
        ]
        weights = (theta.flatten(1).t() @ seen[0].t() / theta.shape[0] ** 0.5).softmax(1)
        sums.append((weights @ seen[1]).t().unflatten(1, (height, width)))
    return x + layer.out.norm(layer.out.conv(torch.stack(sums)))


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 4), (1, 1)])
def test_equals_the_formula_with_gradients(size: tuple[int, int], subsample: bool) -> None:
    layer, x = block(subsample=subsample).eval(), make_image(*size).requires_grad_()
    both = layer(x), by_hand(layer, x)
    torch.testing.assert_close(*both, rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(y.square().sum(), [x, *layer.parameters()]) for y in both]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("training", [True, False])
def test_starts_as_the_identity(norm: Any, training: bool) -> None:
    layer = NonLocalBlock(64, norm=norm).train(training)
    assert layer.embed.weight.std().item() == pytest.approx(0.01, rel=0.1)
    x = make_image(5, 6, channels=64).float()
    assert torch.equal(layer(x), x)


def test_one_channel_is_enough() -> None:
    assert NonLocalBlock(1)(torch.rand(2, 1, 4, 4)).shape == (2, 1, 4, 4)
