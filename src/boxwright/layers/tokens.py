"""Maps as sequences of tokens, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boxwright.layers.padding import resize_mask, valid_ratio
from boxwright.ops.boxes import at_least_float32

Shapes = list[tuple[int, int]]
"""(height, width) of each level, in cells."""


def to_tokens(x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b t d"]:
    """Arrange a map's cells as a sequence, row by row.

    Not ``flatten(2).transpose(1, 2)``: for a batch of one, its gradient has strides that the CPU's batch norm misreads
    as channels last (torch 2.15), and what comes out is wrong without an error.
    """
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_map(tokens: Float[Tensor, "b t d"], height: int, width: int) -> Float[Tensor, "b d {height} {width}"]:
    """Arrange a sequence as a map: the inverse of ``to_tokens``."""
    b, _, d = tokens.shape
    return tokens.transpose(1, 2).reshape(b, d, height, width)


def flatten_maps(maps: Sequence[Float[Tensor, "b d _h _w"]]) -> tuple[Float[Tensor, "b t d"], Shapes]:
    """Arrange all levels as one sequence, the finest first, and list their shapes."""
    return torch.cat([to_tokens(x) for x in maps], 1), [(x.shape[-2], x.shape[-1]) for x in maps]


def split_maps(tokens: Float[Tensor, "b t d"], shapes: Sequence[tuple[int, int]]) -> list[Float[Tensor, "b d _h _w"]]:
    """Arrange one sequence as the maps of all levels: the inverse of ``flatten_maps``."""
    levels = tokens.split([h * w for h, w in shapes], 1)
    return [to_map(level, h, w) for level, (h, w) in zip(levels, shapes, strict=True)]


def flatten_mask(
    padding_mask: Bool[Tensor, "b y x"] | None, shapes: Sequence[tuple[int, int]]
) -> Bool[Tensor, "b t"] | None:
    """Resize a padding mask to every level and arrange it as one sequence; None where there is no padding."""
    if padding_mask is None:
        return None
    return torch.cat([resize_mask(padding_mask, h, w).flatten(1) for h, w in shapes], 1)


class LevelTokens(NamedTuple):
    """All levels as one sequence, with the extent of the images in them.

    ``padding`` is True on padding and None where there is none. ``valid_cells`` are the numbers of columns and rows of
    each level that are inside the image, ``valid_ratios`` the same as fractions of the map; both have one image where
    all are alike.
    """

    memory: Float[Tensor, "b t d"]
    shapes: Shapes
    padding: Bool[Tensor, "b t"] | None
    valid_cells: Float[Tensor, "#b l 2"]
    valid_ratios: Float[Tensor, "#b l 2"]


def flatten_levels(
    maps: Sequence[Float[Tensor, "b d _h _w"]], padding_mask: Bool[Tensor, "b y x"] | None
) -> LevelTokens:
    """Arrange all levels as one sequence and read the extent of the images off the mask."""
    memory, shapes = flatten_maps(maps)
    cells = torch.tensor([(w, h) for h, w in shapes], device=memory.device, dtype=at_least_float32(memory).dtype)
    if padding_mask is None:
        return LevelTokens(memory, shapes, None, cells[None], torch.ones_like(cells)[None])
    masks = [resize_mask(padding_mask, h, w) for h, w in shapes]
    # Whole numbers again, so that a cell at exactly 1 % of the image is there in every precision.
    valid_cells = (torch.stack([valid_ratio(mask) for mask in masks], 1) * cells).round()
    padding = torch.cat([mask.flatten(1) for mask in masks], 1)
    return LevelTokens(memory, shapes, padding, valid_cells, valid_cells / cells)


def compute_cell_centers(tokens: LevelTokens, *, by_ratio: bool = False) -> Float[Tensor, "#b t 2"]:
    """Compute (x, y) of each token's cell, relative to the image inside its padding.

    Args:
        tokens: of all levels.
        by_ratio: divide by the size of the map and then by the valid ratio, as in RT-DETR, rather than by the number of
            valid cells, as in Deformable DETR; the results differ in their last bit, and only with padding.
    """
    centers = []
    for i, (h, w) in enumerate(tokens.shapes):
        y = torch.arange(h, device=tokens.valid_cells.device, dtype=tokens.valid_cells.dtype) + 0.5
        x = torch.arange(w, device=tokens.valid_cells.device, dtype=tokens.valid_cells.dtype) + 0.5
        divisor = tokens.valid_ratios if by_ratio else tokens.valid_cells
        x, y = (x / w, y / h) if by_ratio else (x, y)
        grid = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), -1).view(1, h * w, 2)
        centers.append(grid / divisor[:, i, None])
    return torch.cat(centers, 1)
