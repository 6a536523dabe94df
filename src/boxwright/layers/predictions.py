"""Convolutions that predict, and their maps as rows of predictions."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


def prediction_conv(in_channels: int, out_channels: int, *, bias: bool = True, value: float = 0.0) -> nn.Conv2d:
    """A 3 x 3 convolution with weights from a normal distribution of 0.01 and biases of ``value``."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=bias)
    nn.init.normal_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.constant_(conv.bias, value)
    return conv


def flatten_predictions(maps: Sequence[Float[Tensor, "b _ak _h _w"]], size: int) -> list[Float[Tensor, "b _n k"]]:
    """Predictions of each level as rows of ``size`` numbers, cell by cell: b (a k) h w -> b (h w a) k."""
    return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, size) for x in maps]
