"""DETR's encoder: attention of every cell to every other."""

from __future__ import annotations

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_hidden_dim
from boxwright.layers.positions import LevelPositions, Positions, PositionsAt
from boxwright.layers.predictions import cast_to_weights
from boxwright.layers.recording import CellAttentionLayers
from boxwright.layers.tokens import flatten_maps, flatten_mask, split_maps
from boxwright.layers.transformer import TransformerEncoderLayer, xavier_matrices
from boxwright.mechanism import CellAttention
from boxwright.recorded import Recorded
from boxwright.structures import Features, Level, Spec

__all__ = ["DETREncoder"]


class DETREncoder(nn.Module):
    """Projection of the levels to one width, and transformer layers over their cells as one sequence of tokens.

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
        positions_at: ``attention`` adds them to queries and keys of every layer, ``input`` once to the tokens.

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
        tokens, shapes = flatten_maps([self.projections[name](features[name]) for name in self.out_spec])
        tokens = self._encode(tokens, shapes, padding_mask)
        return dict(zip(self.out_spec, split_maps(tokens, shapes), strict=True))

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain_cell`` needs."""
        return CellAttentionLayers(self.projections, self.layers, self.out_spec).recorded_modules()

    def explain_cell(
        self, recorded: Recorded, point: tuple[float, float], level: str | None = None
    ) -> list[CellAttention]:
        """List the attention of a cell to all levels, in each layer."""
        names = list(self.out_spec)
        own = level if level in names else names[-1]
        attending = CellAttentionLayers(self.projections, self.layers, self.out_spec)
        return attending.explain_cell(recorded, point, own, names)

    def _encode(
        self,
        tokens: Float[Tensor, "b t d"],
        shapes: list[tuple[int, int]],
        padding_mask: Bool[Tensor, "b h w"] | None,
    ) -> Float[Tensor, "b t d"]:
        padding = flatten_mask(padding_mask, shapes)
        positions = self.positions(shapes, padding_mask, tokens.device)
        if positions is not None:
            positions = cast_to_weights(positions, self.layers)
        if positions is not None and self.positions_at == "input":
            tokens, positions = tokens + positions, None
        for layer in self.layers:
            tokens = layer(tokens, positions, padding)
        return cast(Tensor, self.norm(tokens))
