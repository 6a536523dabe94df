"""Best values of each row, in order."""

from __future__ import annotations

from typing import cast

from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.onnx_operators import onnx_top_k, operators_for_onnx


def rank(scores: Float[Tensor, "b n"], count: int) -> tuple[Float[Tensor, "b m"], Int[Tensor, "b m"]]:
    """Find the ``count`` largest values of each row, or all, and their indices; of equal ones the first is larger."""
    if operators_for_onnx():
        return cast(tuple[Tensor, Tensor], onnx_top_k(scores, count))
    values, indices = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :count], indices[:, :count]
