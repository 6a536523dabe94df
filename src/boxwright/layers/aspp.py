"""Atrous spatial pyramid pooling."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ASPP(nn.Module):
    """Four views of a map, from one cell to all of it, side by side; the size stays.

    out = [relu(conv1x1(x)), relu(conv3x3_d3(x)), relu(conv3x3_d6(x)), relu(conv1x1(mean(x)))]

    Args:
        in_channels: of the input.
        branch_channels: of each view; the output has four times as many.

    Source: Chen et al., Rethinking Atrous Convolution, 2017, as in Qiao et al., DetectoRS, CVPR 2021, section 3.2: no
    norms, and no convolution after the views are put together. Checked against ``ASPP`` of mmdet 3.3.0.
    """

    def __init__(self, in_channels: int, branch_channels: int) -> None:
        super().__init__()
        self.out_channels = 4 * branch_channels
        self.views = nn.ModuleList(
            [
                nn.Conv2d(in_channels, branch_channels, 1),
                nn.Conv2d(in_channels, branch_channels, 3, padding=3, dilation=3),
                nn.Conv2d(in_channels, branch_channels, 3, padding=6, dilation=6),
            ]
        )
        self.whole = nn.Conv2d(in_channels, branch_channels, 1)
        for conv in (*self.views, self.whole):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(conv.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        return torch.cat([*(view(x) for view in self.views), whole], dim=1).relu_()
