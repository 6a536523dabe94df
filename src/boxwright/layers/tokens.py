"""Maps to tokens and back."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def to_tokens(x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b t d"]:
    """A map's cells as a sequence, row by row.

    Not ``flatten(2).transpose(1, 2)``: for a batch of one, its gradient has strides that the CPU's batch norm misreads
    as channels last (torch 2.15), and what comes out is wrong without an error.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(tokens: Float[Tensor, "b t d"], height: int, width: int) -> Float[Tensor, "b d {height} {width}"]:
    """The inverse of ``to_tokens``."""
    b, _, d = tokens.shape
    return tokens.transpose(1, 2).reshape(b, d, height, width)
