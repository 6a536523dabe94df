"""Layer norm over the channels of each cell of a map."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalizes the channels of each cell by themselves: y = (x - mean) / sqrt(var + eps) * weight + bias.

    Args:
        channels: of the map.
        eps: added to the variances.

    Source: Liu et al., A ConvNet for the 2020s, CVPR 2022, ``LayerNorm`` of facebookresearch/ConvNeXt, channels first.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps)

    def forward(self, input: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        x = F.layer_norm(input.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)
