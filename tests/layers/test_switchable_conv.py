"""Switchable atrous convolution: what it starts as, its switch, small maps, constant size of the weights."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from boxwright.layers.folding import fold_norms
from boxwright.layers.switchable_conv import SwitchableConv2d
from boxwright.ops.onnx_operators import tracing_for_onnx


def randomized(stride: int = 1, dilation: int = 1) -> SwitchableConv2d:
    torch.manual_seed(0)
    conv = SwitchableConv2d(4, 6, stride=stride, dilation=dilation).double()
    for tensor in conv.state_dict().values():
        tensor.copy_(torch.randn_like(tensor))
    return conv


def make_image(*size: int) -> Tensor:
    return torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(conv: SwitchableConv2d, x: Tensor) -> Tensor:
    """Pooled before the switch, weights channel by channel, reflection by numpy, which reflects as often as needed."""
    x = x + conv.pre_context(x.mean((2, 3), keepdim=True))
    padded = torch.from_numpy(np.pad(x.detach().numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect"))
    switch = conv.switch(F.avg_pool2d(padded, 5, 1))[:, :, :: conv.stride, :: conv.stride]
    rows = [(w - w.mean()) / (w.var() + 1e-5).sqrt() for w in conv.weight]
    near = torch.stack(rows) * conv.weight_scale + conv.weight_shift
    far, d = near + conv.weight_diff, conv.dilation
    y = switch * F.conv2d(x, near, None, conv.stride, d, d)
    y = y + (1 - switch) * F.conv2d(x, far, None, conv.stride, 3 * d, 3 * d)
    return y + conv.post_context(y.mean((2, 3), keepdim=True))


@pytest.mark.parametrize("traced", [False, True], ids=["eager", "for ONNX"])
@pytest.mark.parametrize("size", [(8, 9), (7, 4), (3, 3), (2, 5), (2, 2), (1, 2), (1, 1), (6, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_equals_the_formula(size: tuple[int, int], stride: int, dilation: int, traced: bool) -> None:
    conv, x = randomized(stride, dilation), make_image(*size)
    with tracing_for_onnx() if traced else nullcontext():
        torch.testing.assert_close(conv(x), by_hand(conv, x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2)])
def test_starts_as_the_plain_convolution_of_its_weights(stride: int, dilation: int) -> None:
    torch.manual_seed(0)
    conv = SwitchableConv2d(4, 6, stride=stride, dilation=dilation).double()
    conv.reset_parameters()
    plain = F.conv2d(make_image(7, 8), conv.weight, None, stride, dilation, dilation)
    torch.testing.assert_close(conv(make_image(7, 8)), plain, rtol=1e-10, atol=1e-10)


def test_takes_the_weights_of_a_plain_convolution() -> None:
    plain, conv = nn.Conv2d(4, 6, 3, padding=1, bias=False).double(), SwitchableConv2d(4, 6).double()
    unused = conv.load_state_dict(plain.state_dict(), strict=False)
    assert not unused.unexpected_keys
    assert not {"weight", "weight_scale", "weight_shift"} & set(unused.missing_keys)
    torch.testing.assert_close(conv(make_image(5, 6)), plain(make_image(5, 6)), rtol=1e-10, atol=1e-10)


def test_a_state_brings_its_own_size_of_the_weights() -> None:
    one, two = randomized(), SwitchableConv2d(4, 6).double()
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(two(make_image(5, 6)), one(make_image(5, 6)), rtol=0, atol=0)


def test_the_size_of_the_trained_weights_has_no_effect() -> None:
    conv = randomized()
    before = conv(make_image(5, 6))
    conv.weight.data = 100 * conv.weight.data + 3
    torch.testing.assert_close(conv(make_image(5, 6)), before, rtol=1e-4, atol=1e-4)


def test_gradients_reach_every_parameter_of_a_new_one() -> None:
    conv = SwitchableConv2d(4, 6).double()
    (conv(make_image(7, 8)) * torch.randn(2, 6, 7, 8)).sum().backward()
    for name, parameter in conv.named_parameters():
        assert parameter.grad is not None
        # The larger dilation has no share yet.
        assert (parameter.grad == 0).all() == (name == "weight_diff"), name


def test_stored_weights_change_no_output_once_or_twice() -> None:
    conv = randomized()
    before = conv(make_image(5, 6))
    for _ in range(2):
        fold_norms(conv)
        torch.testing.assert_close(conv(make_image(5, 6)), before, rtol=1e-10, atol=1e-10)


def test_runs_in_the_precision_of_autocast() -> None:
    conv = randomized().float()
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(make_image(5, 6).float()).dtype == torch.bfloat16
