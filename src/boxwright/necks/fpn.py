"""Feature pyramid network."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.layers.feature_pyramid import ExtraKind, ExtraLevels, FeaturePyramid, PyramidNorm
from boxwright.structures import Features, Spec

__all__ = ["FPN"]


class FPN(nn.Module):
    """Coarse levels are upsampled and added to the finer ones; each sum is smoothed.

    top_l = conv1x1(c_l) + nearest(top_{l+1});  out_l = conv3x3(top_l)

    Args:
        in_spec: the levels that come in, fine to coarse; they keep their names.
        out_channels: width of every level that goes out.
        norm: after every convolution but those of extra levels: ``none`` (the paper), or ``batch`` (torchvision's V2).
        extra_levels: levels to add beyond the coarsest, each half the size: 1 for P6, 2 for P6 and P7.
        extra: what they are made of. ``max_pool``: every second cell of the coarsest level that goes out (the paper).
            Convolutions of stride 2 on the coarsest level that comes in, ``conv_input`` (RetinaNet), or that goes out,
            ``conv_output`` (FCOS).
        extra_relu: a ReLU before each convolution of extra levels but the first (torchvision); mmdetection has none.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 3. Checked against
    torchvision.ops.FeaturePyramidNetwork with LastLevelMaxPool and LastLevelP6P7: same weights, same outputs.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        norm: PyramidNorm = "none",
        extra_levels: int = 0,
        extra: ExtraKind = "max_pool",
        extra_relu: bool = True,
    ) -> None:
        super().__init__()
        self.pyramid = FeaturePyramid(in_spec, out_channels, norm)
        self.extra = ExtraLevels(in_spec, out_channels, extra_levels, extra, relu=extra_relu)
        self.out_spec: Spec = {**self.pyramid.out_spec, **self.extra.out_spec}
        self.coarsest = list(in_spec)[-1]

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        levels = self.pyramid(features)
        return {**levels, **self.extra(features[self.coarsest], levels[self.coarsest])}
