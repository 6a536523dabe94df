"""Multi-scale deformable sampling: a weighted sum of bilinear samples from several feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32


def deformable_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m l p 2"],
    weights: Float[Tensor, "b q m l p"],
) -> Float[Tensor, "b q m*d"]:
    """Sample every level at every location and add up what was found.

    out[b, q, m] = sum over l, p of weights[b, q, m, l, p] * bilinear(value of level l, locations[b, q, m, l, p])

    Each (query, head) is a bag of 4 x levels x points rows of the value table, so that the whole operator is one
    ``embedding_bag``: no sampled map is ever materialised. Computed in float32 at least.

    Args:
        value: the maps of all levels, flattened row by row and concatenated; t = sum of h * w.
        shapes: (h, w) of each level.
        locations: (x, y), where (0, 0) and (1, 1) are the outer corners of the map; samples outside count as 0.
        weights: of each sample.

    Returns:
        the sums, heads concatenated, in the dtype of ``value``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, equation 3. Checked against the ``grid_sample`` form
    (``align_corners=False``, zero padding) of lyuwenyu/RT-DETR 068dfde and of transformers.
    """
    b, t, m, d = value.shape
    q = locations.shape[1]
    rows, corner_weights = _corners(shapes, at_least_float32(locations))
    # Row (b, t, m) of the table is value[b, t, m].
    first = torch.arange(b, device=value.device).view(b, 1, 1, 1, 1, 1) * (t * m)
    head = torch.arange(m, device=value.device).view(1, 1, m, 1, 1, 1)
    bags = (rows * m + first + head).flatten(3)  # b q m (l p 4)
    bag_weights = (corner_weights * at_least_float32(weights).unsqueeze(-1)).flatten(3)
    table = at_least_float32(value.reshape(b * t * m, d))
    summed: Tensor = _WeightedBags.apply(table, bags.flatten(0, 2), bag_weights.flatten(0, 2))
    return summed.view(b, q, m * d).to(value.dtype)


class _WeightedBags(torch.autograd.Function):
    """``embedding_bag`` whose backward is half as long.

    The table's gradient is the transposed operator, and so again a weighted sum of rows: of the bags that a row of the
    table is in. One sort finds them; torch's own backward also counts, and walks row by row.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, rows, weights)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        table, rows, weights = ctx.saved_tensors
        num_bags, length = rows.shape
        table_grad = weights_grad = None
        if ctx.needs_input_grad[0]:
            # 32 bits hold every row and sort twice as fast.
            in_order, order = rows.flatten().to(torch.int32).sort()
            every_row = torch.arange(len(table), device=rows.device, dtype=torch.int32)
            first = torch.searchsorted(in_order, every_row, out_int32=True)
            bags = order.div(length, rounding_mode="floor").to(torch.int32)
            table_grad = F.embedding_bag(bags, grad, first, mode="sum", per_sample_weights=weights.flatten()[order])
        if ctx.needs_input_grad[2]:
            bags = torch.arange(num_bags, device=rows.device)
            weights_grad = torch.ops.aten._embedding_bag_per_sample_weights_backward(
                grad, table, rows.flatten(), bags * length, bags.repeat_interleave(length), 0, -1
            ).view_as(weights)
        return table_grad, None, weights_grad


def _corners(shapes: Sequence[tuple[int, int]], locations: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of the four cells around each location, in one picture's table, and their bilinear weights."""
    device = locations.device
    heights = torch.tensor([h for h, _ in shapes], device=device).view(-1, 1)
    widths = torch.tensor([w for _, w in shapes], device=device).view(-1, 1)
    starts = torch.tensor([0] + [h * w for h, w in shapes[:-1]], device=device).cumsum(0).view(-1, 1)

    x = locations[..., 0] * widths - 0.5
    y = locations[..., 1] * heights - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    right_share, bottom_share = x - left, y - top
    columns = torch.stack((left, left + 1), -1)  # b q m l p 2
    lines = torch.stack((top, top + 1), -1)
    x_weights = torch.stack((1 - right_share, right_share), -1) * _inside(columns, widths)
    y_weights = torch.stack((1 - bottom_share, bottom_share), -1) * _inside(lines, heights)

    limit = widths.unsqueeze(-1)
    columns = columns.long().clamp(min=0).minimum(limit - 1)
    lines = lines.long().clamp(min=0).minimum(heights.unsqueeze(-1) - 1) * limit + starts.unsqueeze(-1)
    rows = lines.unsqueeze(-1) + columns.unsqueeze(-2)  # b q m l p 2 2
    corner_weights = y_weights.unsqueeze(-1) * x_weights.unsqueeze(-2)
    return rows.flatten(-2), corner_weights.flatten(-2)


def _inside(positions: Tensor, size: Tensor) -> Tensor:
    return ((positions >= 0) & (positions < size.unsqueeze(-1))).to(positions.dtype)
