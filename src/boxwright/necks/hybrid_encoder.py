"""RT-DETR's hybrid encoder and the variants it was compared with: attention within levels, convolutions across."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.conv import Activation, ConvNorm
from boxwright.layers.option_checks import check_choice, check_counts, check_hidden_dim
from boxwright.layers.positions import encode_sine_grid
from boxwright.layers.predictions import cast_to_weights
from boxwright.layers.pyramid import LightPathAggregation
from boxwright.layers.recording import CellAttentionLayers
from boxwright.layers.rep_vgg import CSPRepLayer, RepELAN
from boxwright.layers.tokens import flatten_maps, flatten_mask, split_maps
from boxwright.layers.transformer import TransformerEncoderLayer
from boxwright.mechanism import CellAttention
from boxwright.recorded import Recorded
from boxwright.structures import Features, Level, Spec, main_levels

__all__ = ["HybridEncoder"]

Variant = Literal["A", "B", "C", "D", "D_S5", "E"]
LevelFusion = Literal["csp", "elan", "elan_sum", "elan_slim"]

SUMS = ("elan_sum", "elan_slim")
"""Fusions of the sum of two levels."""


class HybridEncoder(nn.Module):
    """AIFI (a transformer layer on the coarsest level) and CCFF (a path down and a path up, fused by RepVGG blocks).

    Or one of the encoders that lead up to it in the paper's study, with other levels that attend and another fusion:

    - A: none; the levels go to the head as they come.
    - B: every level attends within itself, in the same transformer layer for all levels.
    - C: the cells of all levels attend to each other, in one transformer layer.
    - D: as B, then a light PANet: a path down and a path up, fused by addition.
    - D_S5: as D, but only the coarsest level attends.
    - E: RT-DETR's own: only the coarsest level attends; CCFF fuses.

    Args:
        in_spec: the levels that come in, fine to coarse.
        hidden_dim: width of every level inside and out; a multiple of 4 and of ``num_heads``.
        num_heads: heads of the attention.
        feedforward_dim: width of the attention layer's feed-forward.
        num_layers: attention layers; 0 for none.
        expansion: of E: width of the fusion blocks as a fraction of ``hidden_dim``; 0.5 in R18, R34 and R50-m.
        num_blocks: of E: RepVGG blocks per fusion.
        variant: the encoder of the study, A to E. A takes none of the options above.
        fusion: of E: ``csp`` is RT-DETR's, ``elan`` D-FINE's: more stages in a fusion, whose outputs are concatenated,
            no activation before the way down, and downsampling by a depthwise convolution. ``elan_sum`` is that of
            DEIMv2 with an HGNetv2: levels are added rather than concatenated, and those that have the width already
            are not projected. ``elan_slim`` is that of DEIMv2 with a transformer, and EdgeCrafter's: stages end
            without a convolution, too.
        activation: of the attention layers' feed-forwards; EdgeCrafter has ``silu``.
        offer_attended: of E: let the coarsest level go out as it is before the fusion too, as the auxiliary level
            ``<name>_attended``, which distillation teaches.

    Source: Zhao et al., RT-DETR, CVPR 2024; E section 4.2, all variants section 5.2, figure 3 and table 3. E was
    checked against transformers' RTDetrHybridEncoder and ``HybridEncoder`` of lyuwenyu/RT-DETR 068dfde (there,
    positions are scrambled on maps that are not square; see ``encode_sine_grid``). Differs in masking padding in the
    attention, where there is any, and in upsampling to the size of the finer level rather than by two, so that sizes
    which are not multiples of 32 pass. With ``elan``: Peng et al., D-FINE, ICLR 2025, checked against ``HybridEncoder``
    of Peterande/D-FINE 4a1f73a; ``elan_sum`` and ``elan_slim`` against that of Intellindust-AI-Lab/DEIMv2 0fff8d4, and
    with ``silu`` that of Intellindust-AI-Lab/EdgeCrafter 706d037.

    Of A to D there is no code of the authors. The sources are the paper's text and table 3 (R50: 31, 32, 32, 35, 35 and
    42 M parameters). Reconstructed from them: C's layer across levels replaces B's layer. With both, C would have 33 M;
    and C costs 1.6 times what B costs beyond A (6.1 and 3.9 ms), as it has 1.6 times the pairs of cells. D shares one
    layer among the levels, as B does: three would be 1.6 M more than in D_S5, and both have 35 M. That leaves 2.3 to
    3.3 M for the PANet, four or five 3 x 3 convolutions, so a full one with seven does not fit; see
    ``LightPathAggregation`` for the choice. The layer is AIFI's, and so are the positions, on each level by itself.
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
        variant: Variant = "E",
        fusion: LevelFusion = "csp",
        activation: Literal["gelu", "silu"] = "gelu",
        offer_attended: bool = False,
    ) -> None:
        super().__init__()
        check_counts({"num_heads": num_heads})
        check_hidden_dim(hidden_dim, num_heads, sine=True)
        if int(hidden_dim * expansion) < 1:
            raise ValueError(f"expansion leaves at least one of {hidden_dim} channels, and {expansion} does not")
        check_choice("variant", variant, get_args(Variant))
        check_choice("fusion", fusion, get_args(LevelFusion))
        if offer_attended and variant != "E":
            raise ValueError(f"offer_attended is an option of variant E, not of {variant}")
        self.variant = variant
        if variant == "A":
            self.out_spec: Spec = dict(in_spec)
            return
        self.out_spec = {name: Level(hidden_dim, level.stride) for name, level in in_spec.items()}
        strides, self.attended = [level.stride for level in in_spec.values()], ""
        if offer_attended:
            self.attended = f"{list(in_spec)[-1]}_attended"
            self.out_spec[self.attended] = Level(hidden_dim, strides[-1], auxiliary=True)
        self.projections = nn.ModuleDict(
            {
                name: nn.Identity()
                if variant == "E" and fusion in SUMS and level.channels == hidden_dim
                else ConvNorm(level.channels, hidden_dim, 1)
                for name, level in in_spec.items()
            }
        )
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(hidden_dim, num_heads, feedforward_dim, activation=activation)
            for _ in range(num_layers)
        )
        if variant in ("D", "D_S5"):
            self.paths = LightPathAggregation(strides, hidden_dim)
        if variant != "E":
            return
        self._build_fusion(strides, hidden_dim, expansion, num_blocks, fusion)

    def _build_fusion(
        self, strides: Sequence[int], hidden_dim: int, expansion: float, num_blocks: int, fusion: LevelFusion
    ) -> None:
        """Build the ways from the coarsest level down, and from the finest up."""
        self.sums = fusion in SUMS

        def fuse() -> nn.Module:
            if fusion == "csp":
                return CSPRepLayer(2 * hidden_dim, hidden_dim, num_blocks=num_blocks, expansion=expansion)
            width = int(hidden_dim * expansion) // 2
            return RepELAN(
                hidden_dim if self.sums else 2 * hidden_dim,
                hidden_dim,
                split_channels=2 * hidden_dim,
                stage_channels=width,
                num_blocks=num_blocks,
                smooth=fusion != "elan_slim",
                joint=self.sums,
            )

        def downsample(stride: int) -> nn.Module:
            if fusion == "csp":
                return ConvNorm(hidden_dim, hidden_dim, 3, stride, activation="silu")
            depthwise = ConvNorm(hidden_dim, hidden_dim, 3, stride, groups=hidden_dim)
            return nn.Sequential(ConvNorm(hidden_dim, hidden_dim, 1), depthwise)

        activation: Activation | None = "silu" if fusion == "csp" else None
        self.laterals = nn.ModuleList(ConvNorm(hidden_dim, hidden_dim, 1, activation=activation) for _ in strides[1:])
        self.down_blocks = nn.ModuleList(fuse() for _ in strides[1:])
        self.downsamples = nn.ModuleList(downsample(coarse // fine) for fine, coarse in pairwise(strides))
        self.up_blocks = nn.ModuleList(fuse() for _ in strides[1:])

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        if self.variant == "A":
            return dict(features)
        levels = [projection(features[name]) for name, projection in self.projections.items()]
        if self.variant in ("B", "D"):
            levels = [self._attend([level], padding_mask)[0] for level in levels]
        elif self.variant == "C":
            levels = self._attend(levels, padding_mask)
        else:
            levels[-1:] = self._attend(levels[-1:], padding_mask)
        coarsest = levels[-1]
        if self.variant in ("D", "D_S5"):
            levels = self.paths(levels)
        elif self.variant == "E":
            levels = self._fuse(levels)
        offered = {self.attended: coarsest} if self.attended else {}
        return dict(zip(self.projections, levels, strict=True)) | offered

    def steering_parameters(self) -> Iterator[nn.Parameter]:
        """List the parameters of the attention layers."""
        if self.variant != "A":
            yield from self.layers.parameters()

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain_cell`` needs."""
        if self.variant == "A":
            return []
        return CellAttentionLayers(self.projections, self.layers, main_levels(self.out_spec)).recorded_modules()

    def explain_cell(
        self, recorded: Recorded, point: tuple[float, float], level: str | None = None
    ) -> list[CellAttention]:
        """List the attention of a cell in each layer: within its level, or to all levels (C)."""
        if self.variant == "A":
            return []
        names = list(self.projections)
        own = level if level in names and self.variant in ("B", "C", "D") else names[-1]
        # Levels that attend one by one go through the same layer, call by call.
        call = names.index(own) if self.variant in ("B", "D") else 0
        attending = CellAttentionLayers(self.projections, self.layers, main_levels(self.out_spec))
        return attending.explain_cell(recorded, point, own, names if self.variant == "C" else [own], call=call)

    def _fuse(self, levels: list[Float[Tensor, "b d _h _w"]]) -> list[Float[Tensor, "b d _h _w"]]:
        # Attention leaves channels last: a graph with free sizes cannot add such a map to one that has them first.
        top = levels[-1].contiguous() if self.sums else levels[-1]
        inner: list[Tensor] = []  # coarse to fine
        for lateral, block, level in zip(self.laterals, self.down_blocks, reversed(levels[:-1]), strict=True):
            # The lateral's output also replaces the coarse level on the way up.
            top = lateral(top)
            inner.append(top)
            top = block(self._join(F.interpolate(top, size=level.shape[-2:]), level))

        out = [top]
        for downsample, block, level in zip(self.downsamples, self.up_blocks, reversed(inner), strict=True):
            out.append(block(self._join(downsample(out[-1]), level)))
        return out

    def _join(self, x: Float[Tensor, "b d h w"], level: Float[Tensor, "b d h w"]) -> Float[Tensor, "b _d h w"]:
        return x + level if self.sums else torch.cat((x, level), 1)

    def _attend(
        self, levels: list[Float[Tensor, "b d _h _w"]], padding_mask: Bool[Tensor, "b y x"] | None
    ) -> list[Float[Tensor, "b d _h _w"]]:
        """Attend from every cell of ``levels`` to every other that is not padding."""
        if not self.layers:
            return levels
        tokens, shapes = flatten_maps(levels)
        d, device = tokens.shape[-1], tokens.device
        positions = torch.cat([encode_sine_grid(h, w, d, device=device) for h, w in shapes])
        positions, padding = cast_to_weights(positions, self.layers), flatten_mask(padding_mask, shapes)
        for layer in self.layers:
            tokens = layer(tokens, positions, padding)
        return split_maps(tokens, shapes)
