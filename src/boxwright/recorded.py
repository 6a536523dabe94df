"""Records of what modules of a detector did while it ran, for explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn


class SampledPoints(NamedTuple):
    """Points of deformable attention, as its operator gets them.

    Args:
        locations: (x, y) in units of the whole map of their level.
        weights: of attention; those of a head add up to 1.
        shapes: (h, w) of each level.
        counts: of the points of each level, which come one level after the other.
    """

    locations: Float[Tensor, "b q m p 2"]
    weights: Float[Tensor, "b q m p"]
    shapes: Sequence[tuple[int, int]]
    counts: Sequence[int]


class ModuleCall(NamedTuple):
    """Positional arguments and output of a module."""

    inputs: tuple[Any, ...]
    output: Any


@dataclass(frozen=True)
class Recorded:
    """Records by module, of every call in order.

    Args:
        attention: (b, q, t), weights of dense attention, the mean over its heads; those of a query add up to 1.
        samples: of deformable attention.
        calls: of all other modules that were asked for.
    """

    attention: dict[nn.Module, list[Float[Tensor, "b _q _t"]]] = field(default_factory=dict)
    samples: dict[nn.Module, list[SampledPoints]] = field(default_factory=dict)
    calls: dict[nn.Module, list[ModuleCall]] = field(default_factory=dict)
