"""Gated feed-forward of transformers."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """Two linear layers, one of them through SiLU, multiplied; then a third: linear2(silu(a) * b).

    a and b are the halves of linear1's output.

    Args:
        dim: width of input and output.
        hidden_dim: width of a and of b.

    Source: Shazeer, GLU Variants Improve Transformer, 2020. Checked against ``SwiGLUFFN`` of
    Intellindust-AI-Lab/DEIMv2 0fff8d4.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, 2 * hidden_dim)
        self.linear2 = nn.Linear(hidden_dim, dim)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights by Xavier's rule, biases at 0."""
        for linear in (self.linear1, self.linear2):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        gate, value = self.linear1(x).chunk(2, -1)
        out: Tensor = self.linear2(F.silu(gate) * value)
        return out
