"""Projection of levels to one width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_counts
from boxwright.structures import Features, Spec, head_levels

DEFAULT_CHANNELS = 256


class InputProjection(nn.ModuleDict):
    """Brings levels to one width: 1 x 1 convolutions where levels have another, nothing where none has.

    Args:
        in_spec: the levels that come in; auxiliary ones are left out.
        channels: the width; where None, that of the levels if they share one, else 256.
    """

    def __init__(self, in_spec: Spec, channels: int | None) -> None:
        super().__init__()
        if channels is not None:
            check_counts({"channels": channels})
        self.levels = head_levels(in_spec)
        widths = {in_spec[name].channels for name in self.levels}
        self.channels = channels or (widths.pop() if len(widths) == 1 else DEFAULT_CHANNELS)
        for name in self.levels:
            if in_spec[name].channels != self.channels:
                conv = nn.Conv2d(in_spec[name].channels, self.channels, 1)
                nn.init.kaiming_uniform_(conv.weight, a=1)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
                self[name] = conv

    def forward(self, features: Features) -> list[Float[Tensor, "b c _h _w"]]:
        return [self[name](features[name]) if name in self else features[name] for name in self.levels]
