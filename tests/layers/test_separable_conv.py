"""Separable convolutions and their norms, and pooling as TensorFlow pads it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boxwright.layers.folding import fold_norms
from boxwright.layers.same_padding import max_pool_same
from boxwright.layers.separable_conv import SeparableConv, efficientdet_norm, pointwise_norm


def test_a_separable_convolution_is_one_whose_kernel_is_an_outer_product() -> None:
    torch.manual_seed(0)
    block = SeparableConv(3, 5)
    nn.init.normal_(block.pointwise.bias)
    x = torch.randn(2, 3, 6, 7)
    kernel = block.pointwise.weight * block.depthwise.weight[:, 0]  # (5, 3, 1, 1) * (3, 3, 3)
    torch.testing.assert_close(block(x), F.conv2d(x, kernel, block.pointwise.bias, padding=1))


def test_parameters() -> None:
    def count(**options: bool) -> int:
        return sum(p.numel() for p in SeparableConv(6, 10, **options).parameters())

    assert count() == 9 * 6 + 6 * 10 + 10
    assert count(norm=True) == count() + 20
    assert count(norm=True, bias=False) == count() + 10


@pytest.mark.parametrize("bias", [True, False])
def test_folding_the_norm_changes_nothing(bias: bool) -> None:
    torch.manual_seed(0)
    block = SeparableConv(4, 6, norm=True, bias=bias)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    norm = block.pointwise.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.2, 3)
    x = torch.randn(2, 4, 5, 5)
    before = block.eval()(x)
    fold_norms(block)
    fold_norms(block)
    assert isinstance(block.pointwise.norm, nn.Identity)
    torch.testing.assert_close(block(x), before, rtol=0, atol=1e-4)


def test_the_norms_constants_act() -> None:
    norm = efficientdet_norm(1)
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)  # mean 2, variance 1, and 2 as an estimate
    torch.testing.assert_close(norm(x).flatten(), torch.tensor([-1.0, 1.0]) / 1.001**0.5)
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.02]))
    torch.testing.assert_close(norm.running_var, torch.tensor([0.99 + 0.02]))
    of_block = pointwise_norm(2, 3).norm
    assert (of_block.eps, of_block.momentum) == (norm.eps, norm.momentum)


def test_fresh_weights_keep_the_variance() -> None:
    torch.manual_seed(0)
    block = SeparableConv(256, 256)
    assert block.depthwise.weight.var().item() == pytest.approx(1 / 9, rel=0.1)
    assert block.pointwise.weight.var().item() == pytest.approx(1 / 256, rel=0.02)
    assert block.pointwise.bias.abs().max() == 0


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (13, 12)])
def test_pooling_pads_as_tensorflow_does(height: int, width: int, stride: int) -> None:
    x = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0)) - 5
    actual = max_pool_same(x, stride)
    if stride == 1:
        assert actual is x
        return
    kernel = stride + 1
    padding = []
    for size in (width, height):
        out = -(-size // stride)
        excess = max((out - 1) * stride + kernel - size, 0)
        padding += [excess // 2, excess - excess // 2]
    expected = F.max_pool2d(F.pad(x, padding, value=float("-inf")), kernel, stride)
    assert actual.shape[-2:] == (-(-height // stride), -(-width // stride))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_windows_of_even_maps_start_on_the_first_cell() -> None:
    x = torch.arange(1.0, 7.0).neg().view(1, 1, 1, 6)  # -1 to -6
    assert max_pool_same(x, 2).flatten().tolist() == [-1, -3, -5]
    assert max_pool_same(x[..., :5], 2).flatten().tolist() == [-1, -2, -4]
