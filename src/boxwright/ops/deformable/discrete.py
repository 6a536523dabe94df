"""Discrete deformable sampling: the value of one cell instead of a mean of four."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def find_cells(
    locations: Float[Tensor, "b q m p 2"], shapes: Sequence[tuple[int, int]], points: Sequence[int]
) -> Int[Tensor, "b q m p 2"]:
    """Find the cell (column, row) that each location stands for: trunc(location * size + 1/2), clamped to the map.

    That is half a cell to the right of and below the cell that a location lies in, as released weights know it. There
    is no gradient.

    Source: lyuwenyu/RT-DETR 068dfde (``deformable_attention_core_func_v2`` with ``discrete``). Differs in clamping
    columns by the width and rows by the height, as transformers does. There, both are clamped by the height: on a map
    that is wider than high no cell right of a square of its height is ever read, and on one that is higher than wide
    columns beyond the width are an error.
    """
    sizes = _per_sample([(w, h) for h, w in shapes], points, locations)
    cells = (locations.detach() * sizes + 0.5).to(torch.int64)
    return cells.clamp(min=0).minimum(sizes.to(torch.int64) - 1)


def snap_to_cells(
    locations: Float[Tensor, "b q m p 2"], shapes: Sequence[tuple[int, int]], points: Sequence[int]
) -> Float[Tensor, "b q m p 2"]:
    """Move each location to the center of its cell, where a bilinear sample is the value of that cell."""
    sizes = _per_sample([(w, h) for h, w in shapes], points, locations)
    return (find_cells(locations, shapes, points) + 0.5) / sizes


def discrete_bag_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
) -> Float[Tensor, "b q m*d"]:
    """Sum one row of the table of values for each point with ``embedding_bag``, where bilinear sampling sums four.

    The arguments are those of ``deformable_sampling``.
    """
    b, t, m, d = value.shape
    dtype = torch.promote_types(value.dtype, torch.float32)
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(len(shapes))]
    columns, lines = find_cells(locations.to(dtype), shapes, points).transpose(1, 2).unbind(-1)  # b m q p
    widths, first = _per_sample([w for _, w in shapes], points, lines), _per_sample(starts, points, lines)
    heads = (torch.arange(b * m, device=lines.device, dtype=lines.dtype) * t).view(b, m, 1, 1)
    rows = (lines * widths + columns + first + heads).flatten(0, 2)
    table = value.to(dtype).transpose(1, 2).flatten(0, 2)
    by = weights.to(dtype).transpose(1, 2).flatten(0, 2)
    summed = F.embedding_bag(rows, table, mode="sum", per_sample_weights=by)
    return summed.view(b, m, -1, d).transpose(1, 2).flatten(2).to(value.dtype)


def _per_sample(of_level: Sequence[int] | Sequence[tuple[int, int]], points: Sequence[int], like: Tensor) -> Tensor:
    """Repeat the number of each level for each of its points."""
    repeated = [number for number, count in zip(of_level, points, strict=True) for _ in range(count)]
    return torch.tensor(repeated, device=like.device, dtype=like.dtype)
