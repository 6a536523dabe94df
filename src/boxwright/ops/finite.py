"""Predictions that are not numbers: kept visible, and reported."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class NotFiniteError(ValueError):
    """A prediction, a loss or a gradient of training is not finite."""


def nan_like_any(*tensors: Float[Tensor, " b *_n"]) -> Float[Tensor, " b"]:
    """0 for each image, or NaN where any of its values is NaN; infinities are numbers.

    Added to scores it keeps a diverged model visible: what is not a number exceeds no threshold and covers no other
    box, so that the model would only seem to find nothing.
    """
    broken = torch.stack([x.flatten(1).isnan().any(1) for x in tensors]).any(0)
    return torch.where(broken, torch.nan, 0.0)


def check_finite(scores: Tensor) -> None:
    """Raise ``ValueError`` if a score is not a number."""
    if scores.isnan().any():
        raise ValueError(
            "the model predicts values that are not numbers, so it has diverged; train it again with a lower learning "
            "rate or without mixed precision"
        )
