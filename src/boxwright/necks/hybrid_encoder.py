"""RT-DETR's hybrid encoder: attention within the coarsest level, convolutions across levels."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.padding import mask_at
from boxwright.layers.positions import sine_grid
from boxwright.layers.rep_vgg import CSPRepLayer
from boxwright.layers.tokens import to_map, to_tokens
from boxwright.layers.transformer import TransformerEncoderLayer
from boxwright.structures import Features, Level, Spec

__all__ = ["HybridEncoder"]


class HybridEncoder(nn.Module):
    """AIFI (a transformer layer on the coarsest level) and CCFF (a path down and a path up, fused by RepVGG blocks).

    Args:
        in_spec: the levels that come in, fine to coarse.
        hidden_dim: width of every level inside and out; a multiple of 4 and of ``num_heads``.
        num_heads: heads of the attention.
        feedforward_dim: width of the attention layer's feed-forward.
        num_layers: attention layers on the coarsest level; 0 for none.
        expansion: width of the fusion blocks as a share of ``hidden_dim``; 0.5 in R18, R34 and R50-m.
        num_blocks: RepVGG blocks per fusion.

    Source: Zhao et al., RT-DETR, CVPR 2024, section 4.2. Checked against transformers' RTDetrHybridEncoder and
    ``HybridEncoder`` of lyuwenyu/RT-DETR 068dfde (there, positions are scrambled on maps that are not square; see
    ``sine_grid``). Differs in masking padding in the attention, where there is any, and in enlarging to the size of
    the finer level rather than by two, so that sizes which are not multiples of 32 pass.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        hidden_dim: int = 256,
        num_heads: int = 8,
        feedforward_dim: int = 1024,
        num_layers: int = 1,
        expansion: float = 1.0,
        num_blocks: int = 3,
    ) -> None:
        super().__init__()
        if num_heads < 1:
            raise ValueError(f"num_heads is at least 1, not {num_heads}")
        if hidden_dim % 4 or hidden_dim % num_heads:
            raise ValueError(f"hidden_dim is a multiple of 4 and of num_heads ({num_heads}), not {hidden_dim}")
        if int(hidden_dim * expansion) < 1:
            raise ValueError(f"expansion leaves at least one of {hidden_dim} channels, and {expansion} does not")
        self.out_spec: Spec = {name: Level(hidden_dim, level.stride) for name, level in in_spec.items()}
        strides = [level.stride for level in in_spec.values()]
        self.projections = nn.ModuleDict(
            {name: ConvNorm(level.channels, hidden_dim, 1) for name, level in in_spec.items()}
        )
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(hidden_dim, num_heads, feedforward_dim, activation="gelu")
            for _ in range(num_layers)
        )
        # From the coarsest down, then from the finest up.
        self.laterals = nn.ModuleList(ConvNorm(hidden_dim, hidden_dim, 1, activation="silu") for _ in strides[1:])
        self.down_blocks = nn.ModuleList(
            CSPRepLayer(2 * hidden_dim, hidden_dim, num_blocks=num_blocks, expansion=expansion) for _ in strides[1:]
        )
        self.downsamples = nn.ModuleList(
            ConvNorm(hidden_dim, hidden_dim, 3, coarse // fine, activation="silu") for fine, coarse in pairwise(strides)
        )
        self.up_blocks = nn.ModuleList(
            CSPRepLayer(2 * hidden_dim, hidden_dim, num_blocks=num_blocks, expansion=expansion) for _ in strides[1:]
        )

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        levels = [self.projections[name](features[name]) for name in self.out_spec]
        levels[-1] = self._attend(levels[-1], padding_mask)

        top = levels[-1]
        inner: list[Tensor] = []  # coarse to fine
        for lateral, block, level in zip(self.laterals, self.down_blocks, reversed(levels[:-1]), strict=True):
            # The lateral's output also replaces the coarse level on the way up.
            top = lateral(top)
            inner.append(top)
            top = block(torch.cat((F.interpolate(top, size=level.shape[-2:]), level), 1))

        out = [top]
        for downsample, block, level in zip(self.downsamples, self.up_blocks, reversed(inner), strict=True):
            out.append(block(torch.cat((downsample(out[-1]), level), 1)))
        return dict(zip(self.out_spec, out, strict=True))

    def _attend(
        self, level: Float[Tensor, "b d h w"], padding_mask: Bool[Tensor, "b y x"] | None
    ) -> Float[Tensor, "b d h w"]:
        if not self.layers:
            return level
        _, d, h, w = level.shape
        positions = sine_grid(h, w, d, device=level.device)
        padding = None if padding_mask is None else mask_at(padding_mask, h, w).flatten(1)
        tokens = to_tokens(level)
        for layer in self.layers:
            tokens = layer(tokens, positions, padding)
        return to_map(tokens, h, w)
