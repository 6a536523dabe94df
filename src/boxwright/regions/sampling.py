"""Which of many regions a step is trained on."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from boxwright.ops.box_matching import BACKGROUND


def sample_balanced(matched: Int[Tensor, " a"], count: int, positive_share: float) -> Int[Tensor, " s"]:
    """A random choice of regions with an object and of background, in rising order.

    Regions with an object are at most ``max_positives``; background fills up what is left. Fewer than
    ``count`` are chosen where there are not enough.

    Args:
        matched: the object of each region, ``BACKGROUND`` or ``IGNORED``.
        count: how many are wanted.
        positive_share: see ``max_positives``.

    Source: Girshick, Fast R-CNN, ICCV 2015, section 2.3. Checked against torchvision 0.29.2's
    BalancedPositiveNegativeSampler, which chooses no object where the share is less than one region.
    """
    (positive,), (negative,) = torch.where(matched >= 0), torch.where(matched == BACKGROUND)
    num_positive = min(len(positive), max_positives(count, positive_share))
    num_negative = min(len(negative), count - num_positive)
    chosen = (
        positive[torch.randperm(len(positive), device=matched.device)[:num_positive]],
        negative[torch.randperm(len(negative), device=matched.device)[:num_negative]],
    )
    return torch.cat(chosen).sort().values


def max_positives(count: int, positive_share: float) -> int:
    """How many of ``count`` regions have an object, at most: this share, rounded down, but one if it is less."""
    return max(1, int(count * positive_share))
