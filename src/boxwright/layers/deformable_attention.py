"""Multi-scale deformable attention and the decoder layer built on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.dropout import Dropout
from boxwright.layers.transformer import FeedForward
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.deformable import Sampling, deformable_sampling


class MultiScaleDeformableAttention(nn.Module):
    """Each query looks at a few points around its reference, on every level.

    Offsets and weights are linear in the query; the softmax of the weights runs over levels and points jointly.
    A reference box (cx, cy, w, h) is sampled at center + offset / points * size / 2, a reference point at
    point + offset in cells of the level.

    Args:
        dim: width of queries and values.
        num_heads: attention heads; divides ``dim``.
        num_levels: of the value maps.
        num_points: per head and level.
        sampling: which form of the sampling runs, see ``deformable_sampling``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1. Checked against transformers and lyuwenyu/RT-DETR
    068dfde.
    """

    def __init__(
        self, dim: int, num_heads: int, num_levels: int, num_points: int, *, sampling: Sampling = "auto"
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"num_heads has to divide the width {dim}, and {num_heads} does not")
        if sampling not in get_args(Sampling):
            raise ValueError(f"sampling is one of {list(get_args(Sampling))}, not {sampling!r}")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling = sampling
        samples = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(dim, samples * 2)
        self.attention_weights = nn.Linear(dim, samples)
        self.value_projection = nn.Linear(dim, dim)
        self.output_projection = nn.Linear(dim, dim)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Each head starts in its own direction, its points 1, 2, 3, ... steps away, all weighted alike."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack((angle.cos(), angle.sin()), -1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        steps = torch.arange(1, self.num_points + 1).view(1, 1, -1, 1)
        offsets = direction.view(-1, 1, 1, 2) * steps  # m 1 p 2
        nn.init.zeros_(self.sampling_offsets.weight)
        self.sampling_offsets.bias.copy_(offsets.expand(-1, self.num_levels, -1, -1).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for linear in (self.value_projection, self.output_projection):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(
        self,
        query: Float[Tensor, "b q d"],
        reference: Float[Tensor, "b q l r"],
        memory: Float[Tensor, "b t d"],
        shapes: Sequence[tuple[int, int]],
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Attend.

        Args:
            query: with its position added.
            reference: per level, in units of the whole map: points (x, y), r = 2, or boxes (cx, cy, w, h), r = 4.
            memory: tokens of all levels, flattened and concatenated.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding; they count as zero.
        """
        b, q, _ = query.shape
        m, l, p = self.num_heads, self.num_levels, self.num_points
        value = self.value_projection(memory)
        if padding is not None:
            value = value.masked_fill(padding[..., None], 0.0)
        offsets = at_least_float32(self.sampling_offsets(query)).view(b, q, m, l, p, 2)
        weights = at_least_float32(self.attention_weights(query)).view(b, q, m, l * p).softmax(-1).view(b, q, m, l, p)
        reference = at_least_float32(reference)[:, :, None, :, None]  # b q 1 l 1 r
        if reference.shape[-1] == 4:
            locations = reference[..., :2] + offsets / p * reference[..., 2:] * 0.5
        else:
            cells = torch.tensor([(w, h) for h, w in shapes], device=query.device, dtype=reference.dtype)
            locations = reference + offsets / cells[:, None]
        value = value.view(b, -1, m, value.shape[-1] // m)
        sampled = deformable_sampling(value, shapes, locations, weights, body=self.sampling)
        return self.output_projection(sampled)  # type: ignore[no-any-return]


class DeformableDecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the maps, feed-forward; post-norm.

    Args:
        dim: width of the queries.
        num_heads: attention heads.
        num_levels: of the maps.
        num_points: per head and level.
        hidden_dim: width of the feed-forward.
        dropout: probability after each of the three, in [0, 1).
        sampling: which form of the sampling runs, see ``deformable_sampling``.

    Source: Zhu et al., Deformable DETR; lyuwenyu/RT-DETR 068dfde (``TransformerDecoderLayer``). The norms are numbered
    in their order of execution.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        num_levels: int = 3,
        num_points: int = 4,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        sampling: Sampling = "auto",
    ) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attention = MultiScaleDeformableAttention(dim, num_heads, num_levels, num_points, sampling=sampling)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, activation="relu", dropout=dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        positions: Float[Tensor, "b q d"],
        reference: Float[Tensor, "b q l r"],
        memory: Float[Tensor, "b t d"],
        shapes: Sequence[tuple[int, int]],
        *,
        padding: Bool[Tensor, "b t"] | None = None,
        blocked: Bool[Tensor, "q q"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """One round.

        Args:
            queries: contents.
            positions: added to queries and keys, never to values.
            reference: see ``MultiScaleDeformableAttention``.
            memory: tokens of all levels.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding.
            blocked: True where a query (row) must not see another (column).
        """
        placed = queries + positions
        attended = self.self_attention(placed, placed, queries, attn_mask=blocked, need_weights=False)[0]
        queries = self.norm1(queries + self.dropout(attended))
        sampled = self.cross_attention(queries + positions, reference, memory, shapes, padding)
        queries = self.norm2(queries + self.dropout(sampled))
        residual = queries + self.dropout(self.feed_forward(queries))
        # Half precision overflows here first (lyuwenyu/RT-DETR #464); float32 never comes near.
        return self.norm3(residual.clamp(-65504, 65504))  # type: ignore[no-any-return]
