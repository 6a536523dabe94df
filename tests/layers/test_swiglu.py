"""SwiGLU: one half of the inner layer gates the other."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from boxwright.layers.swiglu import SwiGLU


def test_is_the_formula_written_out() -> None:
    torch.manual_seed(0)
    layer, x = SwiGLU(6, 4), torch.randn(2, 3, 6)
    torch.nn.init.normal_(layer.linear1.bias)
    gate = F.linear(x, layer.linear1.weight[:4], layer.linear1.bias[:4])
    value = F.linear(x, layer.linear1.weight[4:], layer.linear1.bias[4:])
    torch.testing.assert_close(layer(x), F.linear(gate * gate.sigmoid() * value, layer.linear2.weight))


def test_biases_begin_at_zero_and_weights_within_the_bound_of_xavier() -> None:
    layer = SwiGLU(8, 16)
    assert not layer.linear1.bias.any()
    assert not layer.linear2.bias.any()
    bound = (6 / (8 + 32)) ** 0.5
    assert 0.9 * bound < layer.linear1.weight.abs().max() <= bound
