"""EfficientDet's towers: separable convolutions that all levels share, with norms of each level's own."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import fold
from boxwright.layers.option_checks import check_counts
from boxwright.layers.separable_conv import SeparableConv, efficientdet_norm


class SeparableTower(nn.Module):
    """Separable convolutions, shared by all levels, each with a norm of the level's own and a SiLU.

    Args:
        channels: of input and output.
        num_convs: number of convolutions, at least 0.
        levels: their names.
    """

    def __init__(self, channels: int, num_convs: int, levels: Sequence[str]) -> None:
        super().__init__()
        check_counts({"num_convs": num_convs}, least=0)
        self.blocks = nn.ModuleList(SharedConv(channels, levels) for _ in range(num_convs))

        self.levels = list(levels)

    def forward(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> list[Float[Tensor, "b c _h _w"]]:
        """Apply the tower to the map of each level."""
        return [self._one_level(x, level) for x, level in zip(maps, self.levels, strict=True)]

    def _one_level(self, x: Float[Tensor, "b c h w"], level: str) -> Float[Tensor, "b c h w"]:
        for block in self.blocks:
            x = block(x, level)
        return x


class SharedConv(nn.Module):
    """A separable convolution, shared by all levels, a norm of the level's own and a SiLU.

    Args:
        channels: of input and output.
        levels: their names.
    """

    def __init__(self, channels: int, levels: Sequence[str]) -> None:
        super().__init__()
        self.conv = SeparableConv(channels, channels)
        self.norms = nn.ModuleDict({level: efficientdet_norm(channels) for level in levels})
        self.activation = nn.SiLU()

    def forward(self, x: Float[Tensor, "b c h w"], level: str) -> Float[Tensor, "b c h w"]:
        y: Tensor = self.activation(self.norms[level](self.conv(x)))
        return y

    def fold_norms(self) -> None:
        """Fold the norm of each level into a 1 x 1 convolution of its own; statistics are frozen by it."""
        pointwise = self.conv.pointwise
        if isinstance(pointwise, nn.Identity):
            return
        assert isinstance(pointwise, nn.Conv2d)
        for level, norm in self.norms.items():
            self.norms[level] = fold(pointwise, norm)
        self.conv.pointwise = nn.Identity()
