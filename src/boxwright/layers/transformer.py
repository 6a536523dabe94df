"""Transformer layers."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.conv import ACTIVATIONS, Activation


class FeedForward(nn.Module):
    """linear, activation, dropout, linear.

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
        self.dropout = nn.Dropout(dropout)
        self.linear2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))  # type: ignore[no-any-return]


class TransformerEncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual and the norm after it (post-norm).

    Positions are added to queries and keys, never to values.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        hidden_dim: width of the feed-forward.
        activation: of the feed-forward.
        dropout: probability after attention and in the feed-forward, in [0, 1).

    Source: Carion et al., DETR, ECCV 2020, appendix A.3. Checked against transformers' RTDetrAIFILayer.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        hidden_dim: int,
        *,
        activation: Activation = "relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dim, num_heads, dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, activation=activation, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        positions: Float[Tensor, "t d"] | Float[Tensor, "b t d"],
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """``padding`` is True on tokens that no other token may look at."""
        query = tokens + positions
        # need_weights=False keeps the fused attention kernel.
        attended = self.self_attention(query, query, tokens, key_padding_mask=padding, need_weights=False)[0]
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.dropout(self.feed_forward(tokens)))  # type: ignore[no-any-return]
