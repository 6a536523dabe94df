"""Linear layers in a row."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from boxwright.layers.mlp import MLP


def test_relu_between_the_layers_and_none_after_the_last() -> None:
    torch.manual_seed(0)
    mlp = MLP(5, 7, 3, 3)
    assert [(layer.in_features, layer.out_features) for layer in mlp.layers] == [(5, 7), (7, 7), (7, 3)]
    x = torch.randn(4, 2, 5)
    first, second, last = mlp.layers
    torch.testing.assert_close(mlp(x), last(F.relu(second(F.relu(first(x))))))
    assert mlp(x).min() < 0


def test_one_layer_is_linear() -> None:
    mlp = MLP(5, 7, 3, 1)
    x = torch.randn(4, 5)
    torch.testing.assert_close(mlp(2 * x) - mlp(x), mlp(x) - mlp(0 * x), rtol=1e-4, atol=1e-5)
