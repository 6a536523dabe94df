"""DETR's encoder: every cell attends to every other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_hidden_dim
from boxwright.layers.padding import resize_mask
from boxwright.layers.positions import LevelPositions, Positions, PositionsAt
from boxwright.layers.tokens import to_map, to_tokens
from boxwright.layers.transformer import TransformerEncoderLayer, xavier_matrices
from boxwright.structures import Features, Level, Spec

__all__ = ["DETREncoder"]


class DETREncoder(nn.Module):
    """Levels are projected to one width, their cells become one sequence of tokens, and transformer layers mix them.

    Memory and time grow with the square of the number of cells: DETR gives it c5 alone.

    Args:
        in_spec: the levels that come in, fine to coarse.
        hidden_dim: width of every level inside and out; a multiple of ``num_heads``, and of 4 for sine positions.
        num_heads: attention heads.
        feedforward_dim: width of the feed-forward.
        num_layers: transformer layers; 0 leaves the projection.
        dropout: of attention weights, after attention, in and after the feed-forward, in [0, 1).
        pre_norm: norms before attention and feed-forward, and one more after the last layer.
        positions: ``sine``, ``learned`` (up to 50 cells along each side) or ``none``.
        positions_at: ``attention`` adds them to the queries and keys of every layer, ``input`` once to the tokens.

    Source: Carion et al., DETR, ECCV 2020, section 3.2, appendix A.3 and table 3. Checked against facebookresearch/detr
    29901c5 and transformers. Differs in taking several levels, and in learned positions of its own, where the original
    shares one table with the decoder. Positions at the input are the paper's; the original's code has none.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        hidden_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        num_layers: int = 6,
        dropout: float = 0.1,
        pre_norm: bool = False,
        positions: Positions = "sine",
        positions_at: PositionsAt = "attention",
    ) -> None:
        super().__init__()
        if num_heads < 1 or num_layers < 0:
            raise ValueError(f"num_heads is at least 1 and num_layers at least 0, not {num_heads} and {num_layers}")
        check_hidden_dim(hidden_dim, num_heads)
        self.out_spec: Spec = {name: Level(hidden_dim, level.stride) for name, level in in_spec.items()}
        self.positions_at = positions_at
        self.projections = nn.ModuleDict(
            {name: nn.Conv2d(level.channels, hidden_dim, 1) for name, level in in_spec.items()}
        )
        self.positions = LevelPositions(positions if num_layers > 0 else "none", hidden_dim)
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(hidden_dim, num_heads, feedforward_dim, dropout=dropout, pre_norm=pre_norm)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(hidden_dim) if pre_norm else nn.Identity()
        xavier_matrices(self.layers)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        maps = [self.projections[name](features[name]) for name in self.out_spec]
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        tokens = self._encode(torch.cat([to_tokens(x) for x in maps], 1), shapes, padding_mask)
        levels = tokens.split([h * w for h, w in shapes], 1)
        return {name: to_map(level, *shape) for name, level, shape in zip(self.out_spec, levels, shapes, strict=True)}

    def _encode(
        self,
        tokens: Float[Tensor, "b t d"],
        shapes: list[tuple[int, int]],
        padding_mask: Bool[Tensor, "b h w"] | None,
    ) -> Float[Tensor, "b t d"]:
        padding = None
        if padding_mask is not None:
            padding = torch.cat([resize_mask(padding_mask, h, w).flatten(1) for h, w in shapes], 1)
        positions = self.positions(shapes, padding_mask, tokens.device)
        if positions is not None and self.positions_at == "input":
            tokens, positions = tokens + positions, None
        for layer in self.layers:
            tokens = layer(tokens, positions, padding)
        return self.norm(tokens)  # type: ignore[no-any-return]
