"""Layers of heads over several levels: projection to one width, convolutions that predict, rows of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.option_checks import check_counts
from boxwright.structures import Features, Spec, head_levels

DEFAULT_CHANNELS = 256


class InputProjection(nn.ModuleDict):
    """Projection of levels to one width: 1 x 1 convolutions of levels that have another, nothing else.

    Args:
        in_spec: the levels that come in; auxiliary ones are left out.
        channels: the width; where None, that of the levels if they share one, else 256.
    """

    def __init__(self, in_spec: Spec, channels: int | None) -> None:
        super().__init__()
        if channels is not None:
            check_counts({"channels": channels})
        self.levels = head_levels(in_spec)
        self.strides = [in_spec[name].stride for name in self.levels]
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


def prediction_conv(in_channels: int, out_channels: int, *, bias: bool = True, value: float = 0.0) -> nn.Conv2d:
    """Build a 3 x 3 convolution with weights from a normal distribution of 0.01 and biases of ``value``."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, value)
    return conv


def flatten_predictions(maps: Sequence[Float[Tensor, "b _ak _h _w"]], size: int) -> list[Float[Tensor, "b _n k"]]:
    """Flatten the predictions of each level to rows of ``size`` numbers, cell by cell: b (a k) h w -> b (h w a) k."""
    return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size) for x in maps]


def run_in_full_precision(layer: nn.Module, x: Float[Tensor, "*dims"]) -> Float[Tensor, "*dims_out"]:
    """Run ``layer(x)`` outside autocast, in the type of the layer's weights; the result is at least float32.

    For layers that predict boxes: in half precision a large image's boxes would move in steps of several pixels.
    """
    with torch.autocast(x.device.type, enabled=False):
        out = cast(Tensor, layer(cast_to_weights(x, layer)))
        return out.to(torch.promote_types(out.dtype, torch.float32))


def cast_to_weights(x: Float[Tensor, "*dims"], layer: nn.Module) -> Float[Tensor, "*dims"]:
    """Cast ``x`` to the type of the layer's weights.

    For positions and boxes, which are float32 whatever the weights are. Under autocast weights are float32, so that
    nothing changes there.
    """
    return x.to(next(layer.parameters()).dtype)
