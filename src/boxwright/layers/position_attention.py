"""Self-attention over all cells of a map, by content and by position, instead of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.ceil_pooling import avg_pool_ceil
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.ops.onnx_operators import onnx_position_table, operators_for_onnx
from boxwright.ops.position_tables import fit_table, resized_table

MapPositions = Literal["none", "absolute", "relative"]


class PositionAttention(nn.Module):
    """Multi-head attention of every cell to all cells, with a logit for where they lie. No output projection.

    q = W_q x / sqrt(d);  k, v = W_k x, W_v x;  y_i = sum_j softmax_j(q_i . k_j + q_i . r_ij) v_j,

    r_ij = R_height[row_j - row_i] + R_width[column_j - column_i] (``relative``), or R_height[row_j] +
    R_width[column_j] (``absolute``). Without ``content`` the first product is left out, and there are no keys. With
    stride 2, y is averaged over 2 x 2 cells, at an odd edge over those that there are.

    All of it runs in ``scaled_dot_product_attention``, which never holds the logits of all pairs. Absolute vectors are
    added to the keys. Relative ones become columns: q_i . R_height[row - row_i] for each row, q_i . R_width[column -
    column_i] for each column, against keys that have a 1 at their own row and column. The product is the sum of both
    logits, without any rounding of its own. ``count_as_published`` adds them up for all pairs instead, as the figures
    of papers count it.

    Args:
        channels: of input and output.
        map_size: rows and columns that the tables have vectors for. For maps of another size they are interpolated,
            see ``PositionTables``, and so are tables of another size in a checkpoint.
        num_heads: attention heads, which have the tables in common.
        positions: ``none``, or what the tables say.
        content: whether logits depend on the content of the cell that is looked at.
        stride: 1 or 2.

    Source: Srinivas et al., BoTNet, CVPR 2021, figure 4, and the code that its authors published. Checked against
    ``BottleneckAttn`` of timm 1.0.31 and ``Attention`` of bottleneck-transformer-pytorch 0.1.4: same weights, same
    outputs and gradients. Differs from the authors' code in the initial values of the relative tables: around
    0 with a standard deviation of 1 / sqrt(d), which it passes as the mean (and says so); in maps of any size; and in
    tables of any size.
    """

    def __init__(
        self,
        channels: int,
        map_size: tuple[int, int],
        *,
        num_heads: int = 4,
        positions: MapPositions = "relative",
        content: bool = True,
        stride: int = 1,
    ) -> None:
        super().__init__()
        check_counts({"num_heads": num_heads, "rows": map_size[0], "columns": map_size[1]})
        if channels % num_heads:
            raise ValueError(f"num_heads divides the {channels} channels that attention has, and {num_heads} does not")
        check_choice("positions", positions, get_args(MapPositions))
        check_choice("stride", stride, (1, 2))
        if positions == "none" and not content:
            raise ValueError("attention needs content, positions or both: positions is one of absolute, relative")
        self.num_heads, self.head_dim, self.stride = num_heads, channels // num_heads, stride
        self.content = content
        self.count_as_published = False
        self.project = nn.Conv2d(channels, (3 if content else 2) * channels, 1, bias=False)
        self.absolute = PositionTables(map_size, self.head_dim) if positions == "absolute" else None
        self.relative = PositionTables(map_size, self.head_dim, relative=True) if positions == "relative" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start near zero, so that all cells count alike at first."""
        nn.init.normal_(self.project.weight, std=0.01)
        for tables in (self.absolute, self.relative):
            if tables is not None:
                tables.reset_parameters()

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h_out w_out"]:
        height, width = x.shape[-2:]
        # Fast kernels need each vector in one piece.
        tokens = self.project(x).flatten(2).transpose(1, 2).contiguous()  # b c h w -> b (h w) c
        vectors = tokens.unflatten(-1, (-1, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        query, *keys, value = vectors.unbind()  # each b m t d
        query, key = query * self.head_dim**-0.5, keys[0] if self.content else None
        if self.relative is not None:
            out = self._by_distance(self.relative, query, key, value, height, width)
        else:
            if self.absolute is not None:
                rows, columns = self.absolute(height, width)
                vectors = (rows[:, None] + columns).flatten(0, 1).to(query.dtype)
                key = vectors.expand_as(query) if key is None else key + vectors
            assert key is not None
            out = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        y = out.transpose(-1, -2).flatten(1, 2).unflatten(-1, (height, width))  # b m (h w) d -> b (m d) h w
        # Without padding, windows over the edge are divided by the cells that they have.
        return y if self.stride == 1 else avg_pool_ceil(y)

    def _by_distance(
        self,
        tables: PositionTables,
        query: Float[Tensor, "b m t d"],
        key: Float[Tensor, "b m t d"] | None,
        value: Float[Tensor, "b m t d"],
        height: int,
        width: int,
    ) -> Float[Tensor, "b m t d"]:
        rows, columns = tables(height, width)
        cells = query.unflatten(2, (height, width))
        by_column = _at_distances(cells, columns).flatten(2, 3)  # b m (h w) w
        by_row = _at_distances(cells.transpose(2, 3), rows).transpose(2, 3).flatten(2, 3)  # b m (h w) h
        if self.count_as_published or operators_for_onnx():
            logits = (by_row[..., :, None] + by_column[..., None, :]).flatten(-2)
            logits = logits if key is None else logits + query @ key.transpose(-1, -2)
            return logits.softmax(-1).to(value.dtype) @ value
        queries = [by_row, by_column] if key is None else [query, by_row, by_column]
        keys = [_own_position(height, width, value)] if key is None else [key, _own_position(height, width, value)]
        # Fast kernels need queries, keys and values of one width, and some of them a multiple of 8.
        wide = _multiple_of_8(max(sum(part.shape[-1] for part in queries), self.head_dim))
        query, key, value = (_widen(parts, wide) for parts in (queries, keys, [value]))
        return F.scaled_dot_product_attention(query, key, value, scale=1.0)[..., : self.head_dim]


class PositionTables(nn.Module):
    """A learned vector for every row and one for every column, or for every distance between two of them.

    For a map of another size, one factor brings both tables to the smallest size that the map is a part of, and the
    part at the top left is taken. A wide image thus has the vectors that it has in the corner of a square one, which
    detectors are trained on, and a distance means as much down as across.

    Args:
        map_size: rows and columns.
        dim: of each vector.
        relative: one for each distance from -(n - 1) to n - 1 rather than one for each of n positions.
    """

    def __init__(self, map_size: tuple[int, int], dim: int, *, relative: bool = False) -> None:
        super().__init__()
        self.is_relative = relative
        self.height, self.width = (nn.Parameter(torch.empty(self._length(cells), dim)) for cells in map_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of standard deviation 1 / sqrt(dim)."""
        for table in (self.height, self.width):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def forward(self, height: int, width: int) -> tuple[Float[Tensor, "rows d"], Float[Tensor, "columns d"]]:
        """Take the tables for a map of this size."""
        cells = height, width
        lengths = len(self.height), len(self.width)
        # Sizes that are no numbers yet are free in a graph.
        fit = fit_table if isinstance(height, int) else onnx_position_table
        return (
            fit(self.height, *lengths, *cells, self.is_relative),
            fit(self.width, *lengths[::-1], *cells[::-1], self.is_relative),
        )

    def fits_table(self, name: str, shape: Sequence[int]) -> bool:
        """Tell whether a tensor of this shape can be loaded as the table of this name: it has vectors of its width."""
        table = dict(self.named_parameters()).get(name)
        has_middle = not self.is_relative or (len(shape) == 2 and shape[0] % 2 == 1)
        return table is not None and len(shape) == 2 and shape[0] > 0 and shape[1] == table.shape[1] and has_middle

    def _length(self, cells: int) -> int:
        return 2 * cells - 1 if self.is_relative else cells

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, table in self.named_parameters():
            loaded = state_dict.get(f"{prefix}{name}")
            if loaded is not None and self.fits_table(name, loaded.shape):
                state_dict[f"{prefix}{name}"] = resized_table(loaded, len(table), relative=self.is_relative)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _at_distances(query: Float[Tensor, "b m y x d"], table: Float[Tensor, "r d"]) -> Float[Tensor, "b m y x x"]:
    """Compute q . table[distance] from each cell to every position of its line, along x.

    The product with all 2n - 1 distances is shifted: cell x needs entries n - 1 - x and following. With rows of 2n
    entries, laid end to end, those start at x (2n - 1) + n - 1.
    """
    cells = query.shape[3]
    if operators_for_onnx():
        # The same entries, by their numbers: the way below would fix the size.
        at = torch.arange(cells, device=query.device)
        index = at - at[:, None] + (cells - 1)
        return (query @ table.to(query.dtype).t()).gather(-1, index.expand(*query.shape[:-1], -1))
    products = F.pad(query @ table.to(query.dtype).t(), (0, 1)).flatten(-2)
    lines: Tensor = products[..., cells - 1 : -1].unflatten(-1, (cells, 2 * cells - 1))
    return lines[..., :cells]


def _own_position(height: int, width: int, like: Float[Tensor, "b m t d"]) -> Float[Tensor, "b m t p"]:
    """Put a 1 at each cell's row and one at its column, for all images and heads."""
    rows = torch.eye(height, dtype=like.dtype, device=like.device).repeat_interleave(width, 0)
    columns = torch.eye(width, dtype=like.dtype, device=like.device).repeat(height, 1)
    return torch.cat((rows, columns), 1).expand(*like.shape[:2], -1, -1)


def _multiple_of_8(dim: int) -> int:
    return -(-dim // 8) * 8


def _widen(parts: list[Float[Tensor, "b m t _d"]], dim: int) -> Float[Tensor, "b m t {dim}"]:
    """Put tensors side by side, and zeros after them."""
    missing = dim - sum(part.shape[-1] for part in parts)
    return torch.cat((*parts, parts[0].new_zeros(*parts[0].shape[:3], missing)), -1)
