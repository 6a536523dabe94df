"""EfficientDet's convolutions: depthwise-separable ones, and 1 x 1 ones with bias and norm."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.feature_pyramid import reset_convolutions

EPSILON, MOMENTUM = 1e-3, 0.01
"""Of EfficientDet's batch norms: a batch moves the statistics by a hundredth."""


class SeparableConv(nn.Module):
    """A 3 x 3 convolution of each channel by itself, then a 1 x 1 convolution of all of them; keeps the size.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: a batch norm comes last.
        bias: of the 1 x 1 convolution; the depthwise one has none.
        value: of the biases at first, where there is no norm.

    Source: Tan et al., EfficientDet, CVPR 2020, section 5. Checked against SeparableConv2d of effdet 0.4.1. Differs in
    the initial weights: uniform, of variance 1 / fan-in, where google/automl's have that variance on average.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, norm: bool = False, bias: bool = True, value: float = 0.0
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise: nn.Module
        if norm:
            self.pointwise = pointwise_norm(in_channels, out_channels, bias=bias)
        else:
            self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=bias)
        reset_convolutions(self)
        if isinstance(self.pointwise, nn.Conv2d) and self.pointwise.bias is not None:
            nn.init.constant_(self.pointwise.bias, value)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c_out h w"]:
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


def pointwise_norm(in_channels: int, out_channels: int, *, bias: bool = True) -> ConvNorm:
    """Make a 1 x 1 convolution and a batch norm with EfficientDet's constants; published weights have a bias too.

    Source: google/automl efficientdet (``ResampleFeatureMap``). Checked against effdet 0.4.1.
    """
    block = ConvNorm(in_channels, out_channels, 1, bias=bias, eps=EPSILON, momentum=MOMENTUM)
    reset_convolutions(block)
    return block


def efficientdet_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm with EfficientDet's constants."""
    return nn.BatchNorm2d(channels, eps=EPSILON, momentum=MOMENTUM)
