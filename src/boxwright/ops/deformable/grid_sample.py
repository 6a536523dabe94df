"""Deformable sampling with ``grid_sample``, level by level: the plain form and the measure of the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def grid_sample_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
) -> Float[Tensor, "b q m*d"]:
    """Sample each level, then add up. The arguments are those of ``deformable_sampling``.

    Keeps every sample of every head until they are added. Deterministic on a CPU; on CUDA the backward of
    ``grid_sample`` adds in any order.
    """
    return _sample(value, shapes, locations, weights, points, "bilinear")


def nearest_sampling(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
) -> Float[Tensor, "b q m*d"]:
    """Take the values of the cells that the locations lie in; otherwise as ``grid_sample_sampling``."""
    return _sample(value, shapes, locations, weights, points, "nearest")


def _sample(
    value: Float[Tensor, "b t m d"],
    shapes: Sequence[tuple[int, int]],
    locations: Float[Tensor, "b q m p 2"],
    weights: Float[Tensor, "b q m p"],
    points: Sequence[int],
    mode: str,
) -> Float[Tensor, "b q m*d"]:
    dtype = torch.promote_types(value.dtype, torch.float32)
    maps = value.to(dtype).split([h * w for h, w in shapes], 1)
    # -1 and 1 are the outer corners here.
    grids = (2 * locations.to(dtype) - 1).transpose(1, 2).flatten(0, 1).split(list(points), 2)  # (b m) q p 2
    samples = [
        F.grid_sample(
            x.permute(0, 2, 3, 1).flatten(0, 1).unflatten(-1, shape),  # b t m d -> (b m) d h w
            grid,
            mode=mode,
            padding_mode="zeros",
            align_corners=False,
        )
        for x, grid, shape in zip(maps, grids, shapes, strict=True)
    ]
    by = weights.to(dtype).transpose(1, 2).flatten(0, 1).unsqueeze(1)  # (b m) 1 q p
    summed = (torch.cat(samples, -1) * by).sum(-1)  # (b m) d q
    b, _, m, d = value.shape
    return summed.view(b, m * d, -1).transpose(1, 2).to(value.dtype)
