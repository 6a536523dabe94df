"""Deformable DETR's encoder: attention of every cell of every level to a few points of all levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.deformable_transformer import (
    DeformableEncoderLayer,
    level_projection,
    reset_transformer,
)
from boxwright.layers.option_checks import check_counts, check_hidden_dim
from boxwright.layers.padding import resize_mask
from boxwright.layers.positions import encode_masked_sine, encode_unmasked_sine
from boxwright.layers.recording import place_in_pixels
from boxwright.layers.tokens import LevelTokens, compute_cell_centers, flatten_levels, split_maps
from boxwright.mechanism import CellAttention
from boxwright.mechanism_levels import LevelCell
from boxwright.ops.deformable import Sampling
from boxwright.recorded import Recorded
from boxwright.structures import Features, Level, Spec, coarser_name

__all__ = ["DeformableEncoder"]


class DeformableEncoder(nn.Module):
    """Deformable attention over all levels, to which coarser ones are added where there are too few.

    Args:
        in_spec: the levels that come in, fine to coarse.
        hidden_dim: width of every level that goes out; a multiple of 4 and of ``num_heads``.
        num_levels: levels that go out, or more where more come in. Each one beyond the levels that come in has half the
            size of the level before; the first of them is made of the coarsest level as it comes in. 1 with c5 alone is
            the single-scale form.
        num_heads: attention heads.
        num_points: samples per head and level; one number, or one for each level that goes out.
        across_levels: cells attend to points of all levels; where false, to those of their own level alone, by the same
            weights on every level.
        feedforward_dim: width of the layers' feed-forward.
        num_layers: attention layers.
        dropout: in every layer, in [0, 1).
        position_temperature: of the longest wave of the cells' positions.
        position_shift: see ``encode_masked_sine``; 0 in DINO.
        sampling: backend of the sampling; ``auto`` is the fastest on the device.

    Source: Zhu et al., Deformable DETR, ICLR 2021, section 4.1 and appendix A.2. Checked against transformers'
    DeformableDetrForObjectDetection (which also applies dropout to the encoder's input) and
    fundamentalvision/Deformable-DETR 11169a6. Where in_spec already has pyramid levels (an FPN in front), or levels are
    apart, the paper's table 2 has the numbers; its code has no levels apart, and nothing says what its decoder looks at
    then: compared with its encoder of one level on one level after the other.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        hidden_dim: int = 256,
        num_levels: int = 4,
        num_heads: int = 8,
        num_points: int | Sequence[int] = 4,
        across_levels: bool = True,
        feedforward_dim: int = 1024,
        num_layers: int = 6,
        dropout: float = 0.1,
        position_temperature: float = 10000.0,
        position_shift: float = 0.5,
        sampling: Sampling = "auto",
    ) -> None:
        super().__init__()
        check_counts({"num_levels": num_levels, "num_heads": num_heads, "num_layers": num_layers})
        check_hidden_dim(hidden_dim, num_heads, sine=True)
        if not across_levels and not isinstance(num_points, int):
            raise ValueError(f"num_points is one number where across_levels is false, not {num_points}")
        num_levels, self.across_levels = max(num_levels, len(in_spec)), across_levels
        self.position_temperature, self.position_shift = position_temperature, position_shift
        self.in_levels = list(in_spec)
        self.projections = nn.ModuleDict(
            {name: level_projection(level.channels, hidden_dim) for name, level in in_spec.items()}
        )
        self.out_spec: Spec = {name: Level(hidden_dim, level.stride) for name, level in in_spec.items()}
        self.extra_levels: list[str] = []
        name = self.in_levels[-1]
        channels, stride = in_spec[name].channels, in_spec[name].stride
        for _ in range(num_levels - len(in_spec)):
            name, stride = coarser_name(name), stride * 2
            self.projections[name] = level_projection(channels, hidden_dim, kernel_size=3, stride=2)
            self.out_spec[name] = Level(hidden_dim, stride)
            self.extra_levels.append(name)
            channels = hidden_dim
        self.level_embedding = nn.Parameter(torch.empty(num_levels, hidden_dim))
        self.layers = nn.ModuleList(
            DeformableEncoderLayer(
                hidden_dim,
                num_heads=num_heads,
                num_levels=num_levels if across_levels else 1,
                num_points=num_points,
                hidden_dim=feedforward_dim,
                dropout=dropout,
                sampling=sampling,
            )
            for _ in range(num_layers)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize as published: Xavier throughout, level embeddings from a normal distribution."""
        reset_transformer(self.layers)
        nn.init.normal_(self.level_embedding)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        maps = [self.projections[name](features[name]) for name in self.in_levels]
        coarsest = features[self.in_levels[-1]]
        for name in self.extra_levels:
            coarsest = self.projections[name](coarsest)
            maps.append(coarsest)
        tokens = flatten_levels(maps, padding_mask)
        positions = self._positions(tokens, padding_mask)
        reference = compute_cell_centers(tokens)[:, :, None] * tokens.valid_ratios[:, None]  # b t l 2
        reference = reference.expand(tokens.memory.shape[0], -1, -1, -1)
        attend = self._attend if self.across_levels else self._attend_apart
        memory = attend(tokens, positions, reference)
        return dict(zip(self.projections, split_maps(memory, tokens.shapes), strict=True))

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain_cell`` needs."""
        return [cast(DeformableEncoderLayer, layer).self_attention for layer in self.layers]

    def explain_cell(
        self, recorded: Recorded, point: tuple[float, float], level: str | None = None
    ) -> list[CellAttention]:
        """List the points that a cell samples, of all levels or of its own, in each layer."""
        names, explained = list(self.out_spec), list[CellAttention]()
        strides = [one.stride for one in self.out_spec.values()]
        own, call = names.index(level) if level in names else len(names) - 1, 0
        if not self.across_levels:
            names, strides, own, call = [names[own]], [strides[own]], 0, own
        for index, layer in enumerate(self.layers):
            sampled = recorded.samples[cast(DeformableEncoderLayer, layer).self_attention][call]
            cell = LevelCell.at(names[own], strides[own], sampled.shapes[own], point)
            samples = place_in_pixels(sampled, cell.index_among(names, sampled.shapes), names, strides)
            explained.append(CellAttention(index, cell, samples=samples))
        return explained

    def _attend(
        self, tokens: LevelTokens, positions: Float[Tensor, "#b t d"], reference: Float[Tensor, "b t l 2"]
    ) -> Float[Tensor, "b t d"]:
        """Run all layers on the tokens of all levels."""
        memory = tokens.memory
        for layer in self.layers:
            memory = layer(memory, positions, reference, tokens.shapes, tokens.padding)
        return memory

    def _attend_apart(
        self, tokens: LevelTokens, positions: Float[Tensor, "#b t d"], reference: Float[Tensor, "b t l 2"]
    ) -> Float[Tensor, "b t d"]:
        """Run all layers on one level after the other."""
        counts = [h * w for h, w in tokens.shapes]
        paddings = [None] * len(counts) if tokens.padding is None else tokens.padding.split(counts, 1)
        levels = zip(
            tokens.memory.split(counts, 1),
            positions.split(counts, 1),
            reference.split(counts, 1),
            tokens.shapes,
            paddings,
            strict=True,
        )
        attended = []
        for level, (memory, encoded, points, shape, padding) in enumerate(levels):
            for layer in self.layers:
                memory = layer(memory, encoded, points[:, :, level : level + 1], [shape], padding)
            attended.append(memory)
        return torch.cat(attended, 1)

    def _positions(self, tokens: LevelTokens, padding_mask: Bool[Tensor, "b h w"] | None) -> Float[Tensor, "#b t d"]:
        """Encode the position of each cell within its level, and the level."""
        d, device, positions = tokens.memory.shape[-1], tokens.memory.device, []
        shift, temperature = self.position_shift, self.position_temperature
        for (h, w), of_level in zip(tokens.shapes, self.level_embedding, strict=True):
            if padding_mask is None:
                sine = encode_unmasked_sine(h, w, d, shift=shift, temperature=temperature, device=device)[None]
            else:
                mask = resize_mask(padding_mask, h, w)
                sine = encode_masked_sine(mask, d, shift=shift, temperature=temperature)
            positions.append(sine.to(of_level.dtype) + of_level)
        return torch.cat(positions, 1)
