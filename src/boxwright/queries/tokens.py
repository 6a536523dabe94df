"""Levels on their way into a query head."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.padding import infer_valid_sizes
from boxwright.structures import Features, Spec, head_levels


class LevelProjections(nn.ModuleDict):
    """Projections of the levels to the width of the tokens, by level.

    Args:
        in_spec: the levels that come in; auxiliary ones are left out.
        hidden_dim: width of the tokens.
        make: projection from a level's channels to ``hidden_dim``.
        every_level: project those too that have the width already.
    """

    def __init__(
        self, in_spec: Spec, hidden_dim: int, make: Callable[[int, int], nn.Module], *, every_level: bool = False
    ) -> None:
        super().__init__()
        self.levels = head_levels(in_spec)
        self.strides = [in_spec[name].stride for name in self.levels]
        for name in self.levels:
            if every_level or in_spec[name].channels != hidden_dim:
                self[name] = make(in_spec[name].channels, hidden_dim)

    def forward(
        self,
        features: Features,
        padding_mask: Bool[Tensor, "b h w"] | None = None,
        valid_sizes: Float[Tensor, "#b 2"] | None = None,
    ) -> tuple[list[Float[Tensor, "b d _h _w"]], Float[Tensor, "#b 2"]]:
        """Project the levels, and infer the valid sizes where None."""
        maps = [self[name](features[name]) if name in self else features[name] for name in self.levels]
        return maps, infer_valid_sizes(padding_mask, maps[0], self.strides[0]) if valid_sizes is None else valid_sizes
