"""Inputs of deformable sampling, and the paper's formula written as a loop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = list[tuple[int, int]]
Points = tuple[int, ...]

SHAPES: list[Shapes] = [
    [(8, 8), (4, 4), (2, 2)],
    [(5, 9), (3, 4)],
    [(9, 5)],
    [(1, 1)],
    [(1, 7), (7, 1), (1, 1), (2, 3)],
]

# Distances of samples from the middle of the map; 0.5 is its border.
SPREADS = {"inside": 0.3, "to the borders": 0.5, "far outside": 1.5}


def reference(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, points: Points) -> Tensor:
    """Sum head by head and level by level, as the paper writes it."""
    b, _, m, d = value.shape
    q = locations.shape[1]
    out = value.new_zeros(b, q, m, d)
    for head in range(m):
        first, point = 0, 0
        for (h, w), count in zip(shapes, points, strict=True):
            table = value[:, first : first + h * w, head].transpose(1, 2).reshape(b, d, h, w)
            grid = 2 * locations[:, :, head, point : point + count] - 1  # b q p 2
            sampled = F.grid_sample(table, grid, align_corners=False, padding_mode="zeros")  # b d q p
            of_level = weights[:, None, :, head, point : point + count]
            out[:, :, head] += (sampled * of_level).sum(-1).transpose(1, 2)
            first, point = first + h * w, point + count
    return out.flatten(2)


def example(
    shapes: Shapes,
    *,
    b: int = 2,
    q: int = 7,
    m: int = 3,
    d: int = 4,
    p: int | Points = 2,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw values, locations (within ``spread`` of the middle) and weights, which are those of a softmax."""
    generator = torch.Generator().manual_seed(0)
    tokens, samples = sum(h * w for h, w in shapes), sum(spread_points(p, shapes))
    value = torch.randn(b, tokens, m, d, generator=generator, dtype=dtype)
    locations = 0.5 + spread * (2 * torch.rand(b, q, m, samples, 2, generator=generator, dtype=dtype) - 1)
    weights = torch.rand(b, q, m, samples, generator=generator, dtype=dtype).softmax(-1)
    return value, locations, weights


def spread_points(p: int | Points, shapes: Shapes) -> Points:
    """Number the points of each level."""
    return (p,) * len(shapes) if isinstance(p, int) else p


def smooth_example(shapes: Shapes, *, b: int, q: int = 3, p: int | Points = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Draw in float64, inside and outside, and nowhere near the center of a cell, where the slope jumps."""
    value, locations, weights = example(shapes, b=b, q=q, m=2, d=2, p=p, spread=0.9, dtype=torch.float64)
    sizes = torch.tensor([(w, h) for h, w in shapes], dtype=torch.float64)
    sizes = sizes.repeat_interleave(torch.tensor(spread_points(p, shapes)), 0)
    cells = locations * sizes - 0.5
    cells = cells.floor() + 0.1 + 0.8 * (cells - cells.floor())
    return value, (cells + 0.5) / sizes, weights


def cotangent(value: Tensor, locations: Tensor) -> Tensor:
    b, _, m, d = value.shape
    generator = torch.Generator().manual_seed(1)
    return torch.randn(b, locations.shape[1], m * d, generator=generator, dtype=value.dtype)
