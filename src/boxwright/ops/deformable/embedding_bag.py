"""Deformable sampling as weighted sums of rows of a table: the form for CPUs, compilers and exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

# Cells of zeros around each map. A sample outside reads zeros only, in value and in slope, so that nothing has to be
# masked. The right margin of a line is the left margin of the next.
MARGIN = 2


class Corners(NamedTuple):
    """Position of each sample among the four cells around it, head by head.

    Args:
        rows: of the padded table, the upper left cell's. 32 bits hold every row; they sort and load twice as fast.
        right: distance from that cell's center, in cells, within [0, 1).
        down: likewise.
    """

    rows: Int[Tensor, "b m q p"]
    right: Float[Tensor, "b m q p"]
    down: Float[Tensor, "b m q p"]


def embedding_bag_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
) -> Float[Tensor, "b q m*d"]:
    """Sum a bag of rows of the table of values for each (query, head), four for each point, with ``embedding_bag``.

    No sampled map is ever materialized. Everything is stored head by head, so that the rows that one head reads lie
    close together. Deterministic in both directions. The arguments are those of ``deformable_sampling``.
    """
    b, q, m = locations.shape[:3]
    dtype = torch.promote_types(value.dtype, torch.float32)
    summed: Tensor = _BagSampling.apply(value.to(dtype), locations.to(dtype), weights.to(dtype), shapes, points)
    return summed.view(b, m, q, value.shape[-1]).transpose(1, 2).flatten(2).to(value.dtype)


class _BagSampling(torch.autograd.Function):
    """Both directions by hand: autograd keeps every step of the corner arithmetic and sorts four times as much."""

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        locations: Tensor,
        weights: Tensor,
        shapes: Sequence[tuple[int, int]],
        points: Sequence[int],
    ) -> Float[Tensor, "bmq d"]:
        table = padded_table(value, shapes)
        corners = find_corners(locations, shapes, points)
        weights = head_by_head(weights)
        ctx.save_for_backward(table, weights, *corners)
        ctx.shapes, ctx.points = shapes, points
        rows, row_weights = bag_rows(corners, weights, shapes, points)
        return F.embedding_bag(rows, table, mode="sum", per_sample_weights=row_weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        table, weights, *parts = ctx.saved_tensors
        corners = Corners(*parts)
        # An expanded gradient, as that of a sum, would take the slow path of every operator below.
        grad = grad.contiguous()
        value_grad = locations_grad = weights_grad = None
        if ctx.needs_input_grad[0]:
            value_grad = value_gradient(grad, corners, weights, ctx.shapes)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            products = _row_products(grad, table, _corner_rows(corners.rows, ctx.shapes, ctx.points))
            by_head, steps_grad = _through_corners(products, corners, weights)
            sizes = _per_sample([(w, h) for h, w in ctx.shapes], ctx.points, grad)
            locations_grad = (steps_grad * sizes).transpose(1, 2)
            weights_grad = by_head.transpose(1, 2)
        return value_grad, locations_grad, weights_grad, None, None


def find_corners(
    locations: Float[Tensor, "b q m p 2"], shapes: Sequence[tuple[int, int]], points: Sequence[int]
) -> Corners:
    """Find the four cells around each location; ``points`` are those of each level."""
    b, _, m, _, _ = locations.shape
    # One constant per column, because broadcasting along a short last axis is slow.
    sizes = _per_sample([(w, h) for h, w in shapes], points, locations).flatten()
    # Centers of cells lie on halves. With the margin nothing is negative, and truncating is rounding down.
    positions = (head_by_head(locations) * sizes + (MARGIN - 0.5)).clamp(min=0).minimum(sizes + MARGIN)
    # Not a number becomes the most negative integer, which must not become an address.
    cells = positions.to(torch.int32).clamp(min=0)
    right, down = (positions - cells).unflatten(3, (-1, 2)).unbind(-1)  # b m q p
    columns, lines = cells.unflatten(3, (-1, 2)).unbind(-1)

    *starts, length = _table_starts(shapes)
    first = _per_sample(starts, points, cells)
    line_lengths = _per_sample([w + MARGIN for _, w in shapes], points, cells)
    heads = (torch.arange(b * m, device=cells.device, dtype=cells.dtype) * length).view(b, m, 1, 1)
    return Corners(lines * line_lengths + columns + (first + heads), right, down)


def bag_rows(
    corners: Corners, weights: Float[Tensor, "b m q p"], shapes: Sequence[tuple[int, int]], points: Sequence[int]
) -> tuple[Int[Tensor, "bmq fourp"], Float[Tensor, "bmq fourp"]]:
    """List the rows of each (query, head), four for each point, and their weights."""
    row_weights = torch.stack(_corner_weights(weights, corners.right, corners.down), 3)
    return _bags(_corner_rows(corners.rows, shapes, points)), _bags(row_weights)


def head_by_head(x: Tensor) -> Tensor:
    """Transpose b q m ... to b m q (...), in memory too: operators on mixed layouts take longer than this copy."""
    return x.transpose(1, 2).flatten(3).contiguous()


def value_gradient(
    grad: Float[Tensor, "bmq d"],
    corners: Corners,
    weights: Float[Tensor, "b m q p"],
    shapes: Sequence[tuple[int, int]],
) -> Float[Tensor, "b t m d"]:
    """Sum, for each cell, the gradients of the bags with a sample beside it: again a weighted sum of rows.

    One sort by the upper left cell serves all four corners, and three of the four sums then move by one cell.
    """
    b, m, _, samples = weights.shape
    *starts, length = _table_starts(shapes)
    in_order, order = corners.rows.flatten().sort()
    every_row = torch.arange(b * m * length, device=grad.device, dtype=in_order.dtype)
    first = torch.searchsorted(in_order, every_row, out_int32=True)
    bags = order.to(torch.int32).div(samples, rounding_mode="floor")
    ordered = (x.flatten().index_select(0, order) for x in (weights, corners.right, corners.down))
    sums = [
        F.embedding_bag(bags, grad, first, mode="sum", per_sample_weights=x).view(b, m, length, grad.shape[1])
        for x in _corner_weights(*ordered)
    ]
    levels = []
    for (h, w), start in zip(shapes, starts, strict=True):
        lines = [x[:, :, start : start + (h + 2 * MARGIN) * (w + MARGIN)] for x in sums]
        # b m h w d, each seen from its own corner.
        upper_left, upper_right, lower_left, lower_right = (
            x.unflatten(2, (h + 2 * MARGIN, w + MARGIN))[:, :, MARGIN - down :, MARGIN - right :][:, :, :h, :w]
            for x, (down, right) in zip(lines, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True)
        )
        levels.append((upper_left + upper_right + lower_left + lower_right).flatten(2, 3))
    return torch.cat(levels, 2).transpose(1, 2)


def padded_table(value: Float[Tensor, "b t m d"], shapes: Sequence[tuple[int, int]]) -> Float[Tensor, "r d"]:
    """All maps with their margins, line by line; r runs over images, heads and levels."""
    b, _, m, d = value.shape
    maps = value.transpose(1, 2).split([h * w for h, w in shapes], 2)
    margins = (0, 0, MARGIN, 0, MARGIN, MARGIN)
    levels = [F.pad(x.unflatten(2, shape), margins).flatten(2, 3) for x, shape in zip(maps, shapes, strict=True)]
    return torch.cat((*levels, value.new_zeros(b, m, MARGIN, d)), 2).flatten(0, 2)


def _table_starts(shapes: Sequence[tuple[int, int]]) -> list[int]:
    """First row of each level in the table of one head, and that table's length."""
    starts = [0]
    for h, w in shapes:
        starts.append(starts[-1] + (h + 2 * MARGIN) * (w + MARGIN))
    return [*starts[:-1], starts[-1] + MARGIN]


def _per_sample(of_level: Sequence[int] | Sequence[tuple[int, int]], points: Sequence[int], like: Tensor) -> Tensor:
    """Repeat the number of each level for each of its points."""
    repeated = [number for number, count in zip(of_level, points, strict=True) for _ in range(count)]
    return torch.tensor(repeated, device=like.device, dtype=like.dtype)


def _corner_rows(
    rows: Int[Tensor, "b m q p"], shapes: Sequence[tuple[int, int]], points: Sequence[int]
) -> Int[Tensor, "b m q 4 p"]:
    down = _per_sample([w + MARGIN for _, w in shapes], points, rows)
    lower = rows + down
    return torch.stack((rows, rows + 1, lower, lower + 1), 3)


def _corner_weights(weights: Tensor, right: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Split the weight of each sample bilinearly."""
    lower = weights * down
    upper = weights - lower
    lower_right, upper_right = lower * right, upper * right
    return upper - upper_right, upper_right, lower - lower_right, lower_right


def _bags(x: Tensor) -> Tensor:
    return x.flatten(3).flatten(0, 2)  # b m q 4 p -> (b m q) (4 p)


def _row_products(
    grad: Float[Tensor, "bmq d"], table: Float[Tensor, "r d"], rows: Int[Tensor, "b m q 4 p"]
) -> Float[Tensor, "b m q 4 p"]:
    """Multiply each row, as a scalar product, with the gradient of its bag."""
    length = rows.shape[3] * rows.shape[4]
    bags = torch.arange(grad.shape[0], device=rows.device, dtype=rows.dtype)
    bag_of_row = bags.unsqueeze(1).expand(-1, length).reshape(-1)
    products: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        grad, table, rows.flatten(), bags * length, bag_of_row, 0, -1
    )
    return products.view(rows.shape)


def _through_corners(products: Tensor, corners: Corners, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``_corner_weights`` times products: of the weights, and of the steps right and down."""
    _, right, down = corners
    upper_left, upper_right, lower_left, lower_right = products.unbind(3)
    upper_slope, lower_slope = upper_right - upper_left, lower_right - lower_left
    upper = torch.addcmul(upper_left, right, upper_slope)
    slope_down = torch.addcmul(lower_left, right, lower_slope) - upper
    slope_right = torch.lerp(upper_slope, lower_slope, down)
    steps_grad = torch.stack((weights * slope_right, weights * slope_down), -1)
    return torch.addcmul(upper, down, slope_down), steps_grad
