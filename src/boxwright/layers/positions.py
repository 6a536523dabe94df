"""Position encodings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.padding import resize_mask

Positions = Literal["sine", "learned", "none"]
PositionsAt = Literal["attention", "input"]


def encode_sine_grid(
    height: int, width: int, dim: int, *, temperature: float = 10000.0, device: torch.device | None = None
) -> Float[Tensor, "{height*width} {dim}"]:
    """Encode integer positions in 2-D by sines and cosines, row by row: [sin(y w), cos(y w), sin(x w), cos(x w)].

    w_i = temperature ** (-i / (dim / 4)) for i = 0 .. dim / 4 - 1.

    Args:
        height: rows of the map.
        width: columns of the map.
        dim: of each encoding; a multiple of 4.
        temperature: of the longest wave.

    Source: Zhao et al., RT-DETR. Checked against transformers (equal everywhere) and lyuwenyu/RT-DETR 068dfde (equal
    on square maps; on others the original flattens column by column, against its own tokens, and so scrambles them).
    """
    omega = _compute_frequencies(dim, temperature, device)
    y = torch.arange(height, dtype=torch.float32, device=device)[:, None] * omega
    x = torch.arange(width, dtype=torch.float32, device=device)[:, None] * omega
    rows = torch.cat((y.sin(), y.cos()), 1)[:, None].expand(height, width, dim // 2)
    columns = torch.cat((x.sin(), x.cos()), 1)[None].expand(height, width, dim // 2)
    return torch.cat((rows, columns), -1).reshape(height * width, dim)


def encode_masked_sine(
    mask: Bool[Tensor, "b h w"], dim: int, *, shift: float = 0.0, temperature: float = 10000.0
) -> Float[Tensor, "b t {dim}"]:
    """Encode each image's own cells in 2-D by sines and cosines, row by row, in float32.

    A cell in row y = 1 .. Y and column x = 1 .. X of an image of Y rows and X columns gets the angles
    2 pi (y - shift) / Y and 2 pi (x - shift) / X, encoded as [sin(y w_0), cos(y w_0), sin(y w_1), .., sin(x w_0), ..]
    with w_i = temperature ** (-i / (dim / 4)). Padding has no part in it: an image's encoding is the
    same in any padded input.

    Args:
        mask: True on padding, at the right and below.
        dim: of each encoding; a multiple of 4.
        shift: 0 in DETR, 0.5 (a cell's middle) in Deformable DETR.
        temperature: of the longest wave.

    Source: Carion et al., DETR, ECCV 2020, appendix A.4. Checked against facebookresearch/detr 29901c5 and
    transformers.
    """
    valid = (~mask).float()
    angles = [_compute_angles(valid.cumsum(axis), axis, shift)[..., None] for axis in (1, 2)]
    return _interleave(angles, _compute_frequencies(dim, temperature, mask.device)).flatten(1, 2)


def encode_unmasked_sine(
    height: int,
    width: int,
    dim: int,
    *,
    shift: float = 0.0,
    temperature: float = 10000.0,
    device: torch.device | None = None,
) -> Float[Tensor, "{height*width} {dim}"]:
    """Encode as ``encode_masked_sine`` a map without padding, the same for every image."""
    y = torch.arange(1, height + 1, dtype=torch.float32, device=device)[:, None].expand(height, width)
    x = torch.arange(1, width + 1, dtype=torch.float32, device=device).expand(height, width)
    angles = [_compute_angles(cells, axis, shift)[..., None] for axis, cells in enumerate((y, x))]
    return _interleave(angles, _compute_frequencies(dim, temperature, device)).flatten(0, 1)


class LearnedGrid(nn.Module):
    """A learned vector per column and one per row; a cell's encoding is [column, row].

    Args:
        dim: of each encoding; even.
        max_cells: rows and columns that there are vectors for.

    Source: facebookresearch/detr 29901c5 (``PositionEmbeddingLearned``), which counts cells in the same way: from the
    corner of the padded input, whatever is padding.
    """

    def __init__(self, dim: int, *, max_cells: int = 50) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"the width of a learned 2-D encoding is even, not {dim}")
        self.rows = nn.Embedding(max_cells, dim // 2)
        self.columns = nn.Embedding(max_cells, dim // 2)
        nn.init.uniform_(self.rows.weight)
        nn.init.uniform_(self.columns.weight)

    def forward(self, height: int, width: int) -> Float[Tensor, "{height*width} d"]:
        """Encode all cells, row by row.

        Raises:
            ValueError: for a map of more cells than there are vectors.
        """
        limit = self.rows.num_embeddings
        if max(height, width) > limit:
            raise ValueError(
                f"learned positions reach {limit} cells along each side, and the map has {height} x {width}: "
                'make the images smaller or take positions="sine"'
            )
        columns = self.columns.weight[:width].expand(height, width, -1)
        rows = self.rows.weight[:height, None].expand(height, width, -1)
        return torch.cat((columns, rows), -1).flatten(0, 1)


class LevelPositions(nn.Module):
    """The encodings of all cells of all levels, as one sequence.

    Args:
        kind: ``sine`` as ``encode_masked_sine``, ``learned`` as ``LearnedGrid``, one table for all levels, or ``none``.
        dim: of each encoding.
    """

    def __init__(self, kind: Positions, dim: int) -> None:
        super().__init__()
        if kind == "sine":
            _check_sine(dim)
        self.kind, self.dim = kind, dim
        self.learned = LearnedGrid(dim) if kind == "learned" else None

    def forward(
        self,
        shapes: Sequence[tuple[int, int]],
        padding_mask: Bool[Tensor, "b y x"] | None = None,
        device: torch.device | None = None,
    ) -> Float[Tensor, "t d"] | Float[Tensor, "b t d"] | None:
        """Encode all cells, in float32 or in the type of the learned vectors.

        Args:
            shapes: (h, w) of each level.
            padding_mask: of the padded input.
            device: of the tokens.

        Returns:
            one sequence for all images where padding has no part in it; None for no positions.
        """
        if self.kind == "none":
            return None
        if self.learned is not None:
            return torch.cat([self.learned(h, w) for h, w in shapes])
        if padding_mask is None:
            return torch.cat([encode_unmasked_sine(h, w, self.dim, device=device) for h, w in shapes])
        return torch.cat([encode_masked_sine(resize_mask(padding_mask, h, w), self.dim) for h, w in shapes], 1)


def _check_sine(dim: int) -> None:
    if dim % 4:
        raise ValueError(f"the width of a 2-D sine encoding is a multiple of 4, not {dim}")


def _compute_frequencies(dim: int, temperature: float, device: torch.device | None) -> Float[Tensor, " f"]:
    _check_sine(dim)
    return temperature ** -(torch.arange(dim // 4, dtype=torch.float32, device=device) / (dim // 4))


def _compute_angles(cells: Float[Tensor, "*b h w"], axis: int, shift: float) -> Float[Tensor, "*b h w"]:
    """Compute the angle of each cell from its number along ``axis``; the last number is the count."""
    count = cells.narrow(axis, cells.shape[axis] - 1, 1)
    return (cells - shift) / (count + 1e-6) * (2 * math.pi)


def _interleave(angles: list[Float[Tensor, "*b h w 1"]], omega: Float[Tensor, " f"]) -> Float[Tensor, "*b h w d"]:
    waves = [angle * omega for angle in angles]
    return torch.cat([torch.stack((wave.sin(), wave.cos()), -1).flatten(-2) for wave in waves], -1)
