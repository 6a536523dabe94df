"""What has to be computed in the precision of the weights, whatever the rest of the network runs in."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def run_in_full_precision(layer: nn.Module, x: Float[Tensor, "*dims"]) -> Float[Tensor, "*dims_out"]:
    """``layer(x)`` outside autocast, in the type of the layer's weights.

    For layers that predict boxes: in half precision a large image's boxes would move in steps of several pixels.
    """
    with torch.autocast(x.device.type, enabled=False):
        return layer(x.to(next(layer.parameters()).dtype))  # type: ignore[no-any-return]
