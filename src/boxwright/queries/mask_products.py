"""Masks of the queries of several images at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def multiply_by_image(
    queries: Float[Tensor, "n d"], maps: Float[Tensor, "b d h w"], offsets: Float[Tensor, " n"], sizes: Sequence[int]
) -> Float[Tensor, "n h w"]:
    """Compute the logits of queries for the cells of the map of their image: query . cell + offset.

    Equal to a product for each image, as one node of the graph: with few objects in an image, a node takes longer than
    its numbers.

    Args:
        queries: image by image, of all groups.
        maps: one per image, the same for all groups; fastest with channels last.
        offsets: of the queries.
        sizes: numbers of queries of the images of the first group, of those of the second, and so on.
    """
    logits: Tensor = _Products.apply(queries, maps, offsets, tuple(sizes))
    return logits.reshape(-1, *maps.shape[2:])


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, maps: Tensor, offsets: Tensor, sizes: tuple[int, ...]) -> Tensor:
        cells = _flatten(maps)
        logits = queries.new_empty(len(queries), cells.shape[1])
        for image, own in _parts(sizes, len(maps)):
            torch.addmm(offsets[own, None], queries[own], cells[image].t(), out=logits[own])
        ctx.save_for_backward(queries, maps)
        ctx.sizes = sizes
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, maps = ctx.saved_tensors
        cells = _flatten(maps)
        d_queries, d_cells = torch.empty_like(queries), cells.new_zeros(cells.shape)
        for image, own in _parts(ctx.sizes, len(maps)):
            torch.mm(d_logits[own], cells[image], out=d_queries[own])
            d_cells[image].addmm_(d_logits[own].t(), queries[own])
        d_maps: Tensor = d_cells.unflatten(1, maps.shape[2:]).movedim(-1, 1)
        return d_queries, d_maps, d_logits.sum(1), None


def _flatten(maps: Tensor) -> Tensor:
    """Cells as rows: (b, h w, d)."""
    cells: Tensor = maps.movedim(1, -1).flatten(1, 2)
    return cells


def _parts(sizes: Sequence[int], num_maps: int) -> Iterator[tuple[int, slice]]:
    """List the map and the rows of each image that has queries."""
    for i, (size, end) in enumerate(zip(sizes, accumulate(sizes), strict=True)):
        if size:
            yield i % num_maps, slice(end - size, end)
