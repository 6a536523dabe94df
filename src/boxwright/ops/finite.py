"""Whether a model still says numbers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def check_finite(said: Iterable[Tensor]) -> None:
    """What a model says of images is numbers; infinities are.

    What is not a number exceeds no threshold, so that a model that has diverged would only seem to find nothing.

    Raises:
        ValueError: one is not.
    """
    if torch.stack([x.isnan().any() for x in said]).any():
        raise ValueError(
            "what the model says is not a number, so it has diverged; train it again with a lower learning rate or "
            "without mixed precision"
        )
