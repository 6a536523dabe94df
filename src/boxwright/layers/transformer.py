"""Transformer layers."""

from __future__ import annotations

from typing import cast

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.batch_first_attention import BatchFirstAttention
from boxwright.layers.conv import ACTIVATIONS, Activation
from boxwright.layers.dropout import Dropout, relu_dropout


class FeedForward(nn.Module):
    """Linear layer, activation, dropout and linear layer.

    Args:
        dim: width of input and output.
        hidden_dim: width in between.
        activation: in between.
        dropout: probability, in [0, 1).
    """

    def __init__(self, dim: int, hidden_dim: int, *, activation: Activation = "relu", dropout: float = 0.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(dim, hidden_dim)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = Dropout(dropout)
        self.linear2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = self.linear1(x)
        if isinstance(self.activation, nn.ReLU):
            x = relu_dropout(x, self.dropout.p, training=self.training)
        else:
            x = self.dropout(self.activation(x))
        return cast(Tensor, self.linear2(x))


class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual and a norm.

    Post-norm: x = norm(x + f(x)). Pre-norm: x = x + f(norm(x)). Positions are added to queries and keys, never to
    values.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        hidden_dim: width of the feed-forward.
        activation: of the feed-forward.
        dropout: probability of attention weights, after attention, in and after the feed-forward, in [0, 1).
        pre_norm: norms before attention and feed-forward rather than after their residuals.

    Source: Carion et al., DETR, ECCV 2020, appendix A.3. Checked against facebookresearch/detr 29901c5 and
    transformers' RTDetrAIFILayer.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
        pre_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attention = BatchFirstAttention(dim, num_heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, activation=activation, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        positions: Float[Tensor, "t d"] | Float[Tensor, "b t d"] | None,
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Run one round; ``padding`` is True on tokens that no other token may look at."""
        if self.pre_norm:
            tokens = tokens + self._attend(self.norm1(tokens), positions, padding)
            return clamp_to_half(tokens + self.dropout(self.feed_forward(self.norm2(tokens))))
        tokens = self.norm1(tokens + self._attend(tokens, positions, padding))
        return cast(Tensor, self.norm2(clamp_to_half(tokens + self.dropout(self.feed_forward(tokens)))))

    def _attend(self, tokens: Tensor, positions: Tensor | None, padding: Tensor | None) -> Tensor:
        positioned = _add_positions(tokens, positions)
        # need_weights=False keeps the fused attention kernel.
        attended = self.self_attention(positioned, positioned, tokens, key_padding_mask=padding, need_weights=False)[0]
        return cast(Tensor, self.dropout(attended))


class TransformerDecoderLayer(nn.Module):
    """Self-attention among queries, attention to the memory and feed-forward, each with a residual and a norm.

    Post-norm and pre-norm as in ``TransformerEncoderLayer``. Positions are added to queries and keys, never to values.

    Args:
        dim: width of queries and memory.
        num_heads: heads of both attentions.
        hidden_dim: width of the feed-forward.
        dropout: probability of attention weights, after both attentions, in and after the feed-forward, in [0, 1).
        pre_norm: norms before each of the three rather than after its residual.

    Source: Carion et al., DETR, ECCV 2020, appendix A.3. Checked against facebookresearch/detr 29901c5.
    """

    def __init__(
        self, dim: int, num_heads: int, hidden_dim: int, *, dropout: float = 0.0, pre_norm: bool = False
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.self_attention = BatchFirstAttention(dim, num_heads, dropout)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attention = BatchFirstAttention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, dropout=dropout)
        self.norm3 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        queries: Float[Tensor, "b q d"],
        positions: Float[Tensor, "q d"] | None,
        keys: Float[Tensor, "b t d"],
        memory: Float[Tensor, "b t d"],
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """Run one round.

        Args:
            queries: contents.
            positions: of the queries.
            keys: the memory with its positions.
            memory: the values.
            padding: True on tokens of the memory that no query may look at.
        """
        if self.pre_norm:
            queries = queries + self._attend_to_queries(self.norm1(queries), positions)
            queries = queries + self._attend_to_memory(self.norm2(queries), positions, keys, memory, padding)
            return clamp_to_half(queries + self.dropout(self.feed_forward(self.norm3(queries))))
        queries = self.norm1(queries + self._attend_to_queries(queries, positions))
        queries = self.norm2(queries + self._attend_to_memory(queries, positions, keys, memory, padding))
        return cast(Tensor, self.norm3(clamp_to_half(queries + self.dropout(self.feed_forward(queries)))))

    def _attend_to_queries(self, queries: Tensor, positions: Tensor | None) -> Tensor:
        positioned = _add_positions(queries, positions)
        attended = self.self_attention(positioned, positioned, queries, need_weights=False)[0]
        return cast(Tensor, self.dropout(attended))

    def _attend_to_memory(
        self, queries: Tensor, positions: Tensor | None, keys: Tensor, memory: Tensor, padding: Tensor | None
    ) -> Tensor:
        attended = self.cross_attention(
            _add_positions(queries, positions), keys, memory, key_padding_mask=padding, need_weights=False
        )[0]
        return cast(Tensor, self.dropout(attended))


def clamp_to_half(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Clamp ``x`` to the range of half precision.

    Residuals after a feed-forward overflow first (lyuwenyu/RT-DETR #464); float32 never comes near.
    """
    return x.clamp(-65504, 65504)


def xavier_matrices(module: nn.Module) -> None:
    """Initialize parameters of two dimensions or more from Xavier's uniform distribution; leave biases alone.

    Source: facebookresearch/detr 29901c5 (``Transformer``), where attention's joint projection counts as one matrix.
    """
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)


def _add_positions(tokens: Tensor, positions: Tensor | None) -> Tensor:
    return tokens if positions is None else tokens + positions
