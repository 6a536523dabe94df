"""Deformable DETR's encoder layer, projections of levels, and encodings of boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.layers.dropout import Dropout
from boxwright.layers.transformer import FeedForward, clamp_to_half, xavier_matrices
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.deformable import Sampling


def encode_box_sine(
    boxes: Float[Tensor, "b q 4"], dim: int, *, temperature: float = 10000.0
) -> Float[Tensor, "b q {4*dim}"]:
    """Encode center boxes in [0, 1] by sines and cosines in turn: cx, cy, w, h after one another.

    The angles of a coordinate x are 2 pi x w_i with w_i = temperature ** (-i / (dim / 2)) for i = 0 .. dim / 2 - 1.

    Args:
        boxes: relative to the image inside its padding.
        dim: of each coordinate; even.
        temperature: of the longest wave.

    Source: fundamentalvision/Deformable-DETR 11169a6 (``get_proposal_pos_embed``, there with a width of 128 only).
    """
    boxes = at_least_float32(boxes)
    omega = temperature ** -(torch.arange(dim // 2, device=boxes.device, dtype=boxes.dtype) / (dim // 2))
    angles = (boxes * (2 * math.pi))[..., None] * omega
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(2)


def level_projection(in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1) -> nn.Sequential:
    """Build a convolution and a group norm, which bring a level to the width of the tokens.

    Args:
        in_channels: of the level.
        out_channels: of the tokens; even.
        kernel_size: odd; padded so that stride 1 keeps the size.
        stride: of the convolution.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    nn.init.xavier_uniform_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    # 32 groups wherever the width allows it. With one channel per group, a map of one cell would have no variance.
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(32, out_channels // 2), out_channels))


def reset_transformer(module: nn.Module) -> None:
    """Initialize every matrix by Xavier's rule, and after that deformable attention by its own."""
    xavier_matrices(module)
    for child in module.modules():
        if isinstance(child, MultiScaleDeformableAttention):
            child.reset_parameters()


class DeformableEncoderLayer(nn.Module):
    """Deformable attention of all tokens to all levels and feed-forward; post-norm.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        num_levels: of the maps.
        num_points: per head and level; one number, or one for each level.
        hidden_dim: width of the feed-forward.
        dropout: probability after both and within the feed-forward, in [0, 1).
        sampling: backend of the sampling, see ``deformable_sampling``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1. Checked against fundamentalvision/Deformable-DETR
    11169a6 and transformers. Differs in keeping float16 from overflowing.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int | Sequence[int] = 4,
        hidden_dim: int = 1024,
        dropout: float = 0.0,
        sampling: Sampling = "auto",
    ) -> None:
        super().__init__()
        self.self_attention = MultiScaleDeformableAttention(dim, num_heads, num_levels, num_points, sampling=sampling)
        self.norm1 = nn.LayerNorm(dim)
        self.feed_forward = FeedForward(dim, hidden_dim, activation="relu", dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "b t d"],
        positions: Float[Tensor, "#b t d"],
        reference: Float[Tensor, "b t l 2"],
        shapes: Sequence[tuple[int, int]],
        padding: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Run one round.

        Args:
            tokens: of all levels.
            positions: added to the queries, never to the values.
            reference: of each token on each level, in units of the whole map.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding.
        """
        attended = self.self_attention(tokens + positions, reference, tokens, shapes, padding)
        tokens = self.norm1(tokens + self.dropout(attended))
        return cast(Tensor, self.norm2(clamp_to_half(tokens + self.dropout(self.feed_forward(tokens)))))
