"""Recording of attention and of outputs of modules while they run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from boxwright.layers.deformable_attention import MultiScaleDeformableAttention
from boxwright.layers.transformer import TransformerEncoderLayer
from boxwright.mechanism import CellAttention, QuerySamples
from boxwright.mechanism_levels import LevelCell, LevelMap
from boxwright.recorded import ModuleCall, Recorded, SampledPoints
from boxwright.structures import Spec


@contextmanager
def record_modules(modules: Iterable[nn.Module]) -> Iterator[Recorded]:
    """Record every call of these modules while the context is entered.

    Dense attention is asked for its weights, which torch's fused kernel does not have; the output of the other one
    differs from the fused one's in its last bits. Deformable attention places its samples a second time. Nothing else
    is computed, and outside of the context modules run as they ever do.

    Args:
        modules: attention, dense and deformable, and any others.
    """
    recorded, handles = Recorded(), list[RemovableHandle]()
    try:
        for module in dict.fromkeys(modules):
            if isinstance(module, nn.MultiheadAttention):
                handles.append(module.register_forward_pre_hook(_ask_for_weights, with_kwargs=True))
            handles.append(module.register_forward_hook(_Record(recorded)))
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


def _ask_for_weights(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    del module
    return args, {**kwargs, "need_weights": True, "average_attn_weights": True}


class _Record:
    """A hook that keeps what a call tells.

    Args:
        recorded: where it is kept.
    """

    def __init__(self, recorded: Recorded) -> None:
        self.recorded = recorded

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, nn.MultiheadAttention):
            self.recorded.attention.setdefault(module, []).append(output[1].detach())
        elif isinstance(module, MultiScaleDeformableAttention):
            query, reference, _, shapes, *_ = args
            points = SampledPoints(*module.place_samples(query, reference, shapes), list(shapes), module.points)
            self.recorded.samples.setdefault(module, []).append(points)
        else:
            self.recorded.calls.setdefault(module, []).append(ModuleCall(args, output))


def place_in_pixels(sampled: SampledPoints, query: int, names: Sequence[str], strides: Sequence[int]) -> QuerySamples:
    """Select the samples of a query of the first image, in pixels of the network input.

    Args:
        sampled: of all queries.
        query: its index.
        names: of the levels.
        strides: of the levels.
    """
    levels = torch.tensor([level for level, count in enumerate(sampled.counts) for _ in range(count)])
    extents = [(w * stride, h * stride) for (h, w), stride in zip(sampled.shapes, strides, strict=True)]
    points = sampled.locations[0, query].float().cpu() * torch.tensor(extents).float()[levels]
    return QuerySamples(points, sampled.weights[0, query].float().cpu(), levels, tuple(names))


def split_weights(
    weights: Float[Tensor, " t"], names: Sequence[str], strides: Sequence[int], shapes: Sequence[tuple[int, int]]
) -> dict[str, LevelMap]:
    """Arrange the weights of all cells as a map of each level.

    Args:
        weights: of the cells of all levels, flattened and concatenated.
        names: of the levels.
        strides: of the levels.
        shapes: (h, w) of each level.
    """
    parts = weights.split([h * w for h, w in shapes])
    levels = zip(names, strides, parts, shapes, strict=True)
    return {name: LevelMap.of(part.view(shape), stride) for name, stride, part, shape in levels}


class CellAttentionLayers(NamedTuple):
    """Layers of an encoder in which cells attend to each other, and the projections that its levels come from.

    ``spec`` is of these levels.
    """

    projections: nn.ModuleDict
    layers: nn.ModuleList
    spec: Spec

    def recorded_modules(self) -> list[nn.Module]:
        """List the modules whose calls ``explain_cell`` needs."""
        return [*self.projections.values(), *self._attentions()]

    def explain_cell(
        self, recorded: Recorded, point: tuple[float, float], level: str, names: Sequence[str], *, call: int = 0
    ) -> list[CellAttention]:
        """List the attention of a cell of the first image, layer by layer.

        Args:
            recorded: calls of ``recorded_modules``.
            point: (x, y) in the cell, in pixels of the network input.
            level: of the cell.
            names: of the levels that attend to each other.
            call: of each attention, the index of the one that these levels were in.
        """
        strides = [self.spec[name].stride for name in names]
        shapes = [_read_shape(recorded, self.projections[name]) for name in names]
        cell = LevelCell.at(level, self.spec[level].stride, shapes[names.index(level)], point)
        token = cell.index_among(names, shapes)
        weights = [recorded.attention[one][call][0, token] for one in self._attentions()]
        maps = [split_weights(one, names, strides, shapes) for one in weights]
        return [CellAttention(layer, cell, own) for layer, own in enumerate(maps)]

    def _attentions(self) -> list[nn.Module]:
        return [cast(TransformerEncoderLayer, layer).self_attention for layer in self.layers]


def _read_shape(recorded: Recorded, projection: nn.Module) -> tuple[int, int]:
    """Read (h, w) of a level off the map that its projection made."""
    height, width = recorded.calls[projection][0].output.shape[-2:]
    return int(height), int(width)
