"""Fully connected layers in a row."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ACTIVATIONS, Activation


class MLP(nn.Module):
    """Linear layers with activations between them, none after the last.

    Args:
        in_dim: width of the input.
        hidden_dim: width of every layer but the last.
        out_dim: width of the output.
        num_layers: linear layers, at least 1.
        activation: between them.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, out_dim: int, num_layers: int, *, activation: Activation = "relu"
    ) -> None:
        super().__init__()
        widths = [in_dim] + [hidden_dim] * (num_layers - 1) + [out_dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return cast(Tensor, self.layers[-1](x))
