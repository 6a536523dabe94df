"""Which level of a pyramid a region is pooled from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.boxes import area

Epsilon = Literal["outside", "inside"]


def region_levels(
    boxes: Float[Tensor, "r 4"],
    strides: Sequence[int],
    *,
    canonical_side: float = 224.0,
    canonical_stride: int = 16,
    epsilon: Epsilon = "outside",
) -> Int[Tensor, " r"]:
    """The level of each box, as an index of ``strides``: regions of one size look alike on their levels.

    k = floor(k0 + log2(sqrt(w h) / 224)), where the level of stride 2^k is meant and 2^k0 is ``canonical_stride``; the
    finest or coarsest level where there is none so fine or so coarse. Of levels that share a stride the last is taken.

    Args:
        boxes: corner boxes in pixels of the network's input.
        strides: of the levels, fine to coarse.
        canonical_side: side of a square that belongs to the canonical level, in pixels.
        canonical_stride: stride of that level.
        epsilon: where 1e-6 is added against rounding: to the logarithm (torchvision), or to what it is taken of
            (Detectron).

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, equation 1. Checked against torchvision 0.29.2's
    LevelMapper. Detectron's differs on boxes of just under a power of two times the canonical side.
    """
    side = area(boxes).clamp(min=0).sqrt() / canonical_side
    if epsilon == "outside":
        steps = torch.log2(side.clamp(min=torch.finfo(side.dtype).tiny)) + 1e-6
    else:
        steps = torch.log2(side + 1e-6)
    stride = canonical_stride * 2.0 ** steps.floor().clamp(-16, 16)
    # The first stride that is at least so coarse, and of its levels the last, whose features have seen the most.
    ends = [place for place, own in enumerate(strides) if own not in strides[place + 1 :]]
    coarseness = torch.tensor([strides[end] for end in ends], device=boxes.device, dtype=stride.dtype)
    places = torch.bucketize(stride, coarseness).clamp(max=len(ends) - 1)
    return torch.tensor(ends, device=boxes.device)[places]
