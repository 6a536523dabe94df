"""What Deformable DETR's encoder and decoder share: tokens of several levels, their places, the encoder's layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.layers.dropout import Dropout
from boxwright.layers.padding import resize_mask, valid_ratio
from boxwright.layers.tokens import to_tokens
from boxwright.layers.transformer import FeedForward, clamp_to_half, xavier_matrices
from boxwright.ops.boxes import at_least_float32
from boxwright.ops.deformable import Sampling


class LevelTokens(NamedTuple):
    """All levels as one sequence, with what is known of each place.

    ``padding`` is True on padding and None where there is none. ``content`` is how many columns and rows of each level
    are image, ``valid_ratios`` the same as a share of the map; both have one image where all are alike.
    """

    memory: Float[Tensor, "b t d"]
    shapes: list[tuple[int, int]]
    padding: Bool[Tensor, "b t"] | None
    content: Float[Tensor, "#b l 2"]
    valid_ratios: Float[Tensor, "#b l 2"]


def flatten_levels(
    maps: Sequence[Float[Tensor, "b d _h _w"]], padding_mask: Bool[Tensor, "b y x"] | None
) -> LevelTokens:
    """Flatten the levels and read off the mask what is image."""
    memory = torch.cat([to_tokens(level) for level in maps], 1)  # b (l h w) d
    shapes = [(level.shape[-2], level.shape[-1]) for level in maps]
    cells = torch.tensor([(w, h) for h, w in shapes], device=memory.device, dtype=at_least_float32(memory).dtype)
    if padding_mask is None:
        return LevelTokens(memory, shapes, None, cells[None], torch.ones_like(cells)[None])
    masks = [resize_mask(padding_mask, h, w) for h, w in shapes]
    # Whole numbers again, so that a cell at exactly 1 % of the image is there in every precision.
    content = (torch.stack([valid_ratio(mask) for mask in masks], 1) * cells).round()
    return LevelTokens(memory, shapes, torch.cat([mask.flatten(1) for mask in masks], 1), content, content / cells)


def compute_cell_centers(tokens: LevelTokens) -> Float[Tensor, "#b t 2"]:
    """(x, y) of each token's cell, relative to the image's content."""
    places = []
    for i, (h, w) in enumerate(tokens.shapes):
        y = torch.arange(h, device=tokens.content.device, dtype=tokens.content.dtype) + 0.5
        x = torch.arange(w, device=tokens.content.device, dtype=tokens.content.dtype) + 0.5
        grid = torch.stack((x.expand(h, w), y[:, None].expand(h, w)), -1).view(1, h * w, 2)
        places.append(grid / tokens.content[:, i, None])
    return torch.cat(places, 1)


def encode_box_sine(
    boxes: Float[Tensor, "b q 4"], dim: int, *, temperature: float = 10000.0
) -> Float[Tensor, "b q {4*dim}"]:
    """Sine-cosine encoding of center boxes in [0, 1]: cx, cy, w, h after one another, sines and cosines in turn.

    The angles of a coordinate x are 2 pi x w_i with w_i = temperature ** (-i / (dim / 2)) for i = 0 .. dim / 2 - 1.

    Args:
        boxes: relative to the image's content.
        dim: of each coordinate; even.
        temperature: of the longest wave.

    Source: fundamentalvision/Deformable-DETR 11169a6 (``get_proposal_pos_embed``, there with a width of 128 only).
    """
    boxes = at_least_float32(boxes)
    omega = temperature ** -(torch.arange(dim // 2, device=boxes.device, dtype=boxes.dtype) / (dim // 2))
    angles = (boxes * (2 * math.pi))[..., None] * omega
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(2)


def level_projection(in_channels: int, out_channels: int, *, kernel_size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution and group norm, which bring a level to the width of the tokens.

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
    """Xavier for every matrix; after that, deformable attention starts as it always does."""
    xavier_matrices(module)
    for child in module.modules():
        if isinstance(child, MultiScaleDeformableAttention):
            child.reset_parameters()


class DeformableEncoderLayer(nn.Module):
    """Deformable attention of all tokens to all levels, feed-forward; post-norm.

    Args:
        dim: width of the tokens.
        num_heads: attention heads.
        num_levels: of the maps.
        num_points: per head and level.
        hidden_dim: width of the feed-forward.
        dropout: probability after both and within the feed-forward, in [0, 1).
        sampling: which form of the sampling runs, see ``deformable_sampling``.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1. Checked against fundamentalvision/Deformable-DETR
    11169a6 and transformers. Differs in keeping float16 from overflowing.
    """

    def __init__(
        self,
        dim: int,
        *,
        num_heads: int = 8,
        num_levels: int = 4,
        num_points: int = 4,
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
        """One round.

        Args:
            tokens: of all levels.
            positions: added to the queries, never to the values.
            reference: of each token on each level, in units of the whole map.
            shapes: (h, w) of each level.
            padding: True on tokens that are padding.
        """
        attended = self.self_attention(tokens + positions, reference, tokens, shapes, padding)
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(clamp_to_half(tokens + self.dropout(self.feed_forward(tokens))))  # type: ignore[no-any-return]
