"""EfficientDet's convolutions: depthwise-separable ones, and 1 x 1 ones with bias and norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import fold
from boxwright.layers.feature_pyramid import reset_convolutions


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, then a 1 x 1 convolution of all of them; keeps the size.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: a batch norm comes last.
        bias: of the 1 x 1 convolution; the depthwise one has none.

    Source: Tan et al., EfficientDet, CVPR 2020, section 5. Checked against SeparableConv2d of effdet 0.4.1. Differs in
    the initial weights: uniform, of variance 1 / fan-in, where google/automl's have that variance on average.
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise: nn.Module
        if norm:
            self.pointwise = PointwiseNorm(in_channels, out_channels, bias=bias)
        else:
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        reset_convolutions(self)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        return self.pointwise(self.depthwise(x))  # type: ignore[no-any-return]


class PointwiseNorm(nn.Module):
    """A 1 x 1 convolution and a batch norm.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        bias: of the convolution. The norm takes it away again; it is there because the published weights have it.

    Source: google/automl efficientdet (``ResampleFeatureMap``). Checked against effdet 0.4.1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        self.norm: nn.BatchNorm2d | nn.Identity = efficientdet_norm(out_channels)
        reset_convolutions(self)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        return self.norm(self.conv(x))  # type: ignore[no-any-return]

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Put the norm's scale and shift into the convolution. For inference: statistics are frozen by it."""
        if isinstance(self.norm, nn.Identity):
            return
        if self.conv.bias is not None:
            # norm(x + bias) is the norm of x with a mean that is smaller by the bias.
            assert self.norm.running_mean is not None
            self.norm.running_mean -= self.conv.bias
            self.conv.bias = None
        self.conv, self.norm = fold(self.conv, self.norm), nn.Identity()


def efficientdet_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with EfficientDet's constants: epsilon 1e-3; a batch moves the statistics by a hundredth."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)
