"""Deformable sampling as products of gathered rows: the form for runtimes that have no ``grid_sample``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.deformable.embedding_bag import bag_rows, find_corners, head_by_head, padded_table


def gathered_rows_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
) -> Float[Tensor, "b q m*d"]:
    """Gather four rows for each point, and multiply those of each (query, head) with their weights.

    Every gathered row is stored, which ``embedding_bag`` does not. The arguments are those of ``deformable_sampling``.
    """
    b, q, m = locations.shape[:3]
    dtype = torch.promote_types(value.dtype, torch.float32)
    corners = find_corners(locations.to(dtype), shapes, points)
    rows, by = bag_rows(corners, head_by_head(weights.to(dtype)), shapes, points)
    gathered = padded_table(value.to(dtype), shapes).index_select(0, rows.flatten()).view(*rows.shape, -1)
    summed = by[:, None] @ gathered  # (b m q) 1 (4 p) times (b m q) (4 p) d
    return summed.view(b, m, q, -1).transpose(1, 2).flatten(2).to(value.dtype)
