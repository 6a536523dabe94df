"""Path aggregation: a feature pyramid with a second path, from fine to coarse."""

from __future__ import annotations

from typing import Literal, get_args

from jaxtyping import Bool
from torch import Tensor, nn

from boxwright.layers.feature_pyramid import ExtraKind, ExtraLevels, FeaturePyramid, level_steps, reset_convolutions
from boxwright.layers.option_checks import check_choice
from boxwright.structures import Features, Spec

__all__ = ["PAFPN"]

PathWiring = Literal["paper", "mmdet"]


class PAFPN(nn.Module):
    """A feature pyramid whose fine levels are then downsampled and added to the coarser ones.

    With p_l from the pyramid, s a convolution 3x3 whose stride is the step to the next level, f one of stride 1, and
    n_l = p_l unprocessed on the finest level:

    paper: n_{l+1} = relu(f(relu(s(n_l)) + p_{l+1}));
    mmdet: m_{l+1} = s(m_l) + p_{l+1}, n_{l+1} = f(m_{l+1}), with m_l = p_l on the finest level.

    Args:
        in_spec: the levels that come in, fine to coarse; they keep their names.
        out_channels: width of every level that goes out.
        wiring: of the path from fine to coarse. ``paper`` builds each level on the finished one below. ``mmdet`` builds
            it on the sum from which the one below was made, without ReLU.
        extra_levels: levels to add beyond the coarsest, each half the size: 1 for P6, 2 for P6 and P7.
        extra: what they are made of. ``max_pool``: every second cell of the coarsest level that goes out (the paper).
            Convolutions of stride 2 on the coarsest level that comes in, ``conv_input`` (RetinaNet), or that goes out,
            ``conv_output`` (FCOS).
        extra_relu: a ReLU before each convolution of extra levels but the first (torchvision); mmdetection has none.

    Raises:
        ValueError: an option is out of range, or the stride of a level is no multiple of that of the one before.

    Source: Liu et al., Path Aggregation Network for Instance Segmentation, CVPR 2018, section 3.1. ``paper`` was
    checked against ShuLiu1993/PANet commit f055f71, ``mmdet`` against PAFPN of mmdetection 3.3.0: same weights, same
    outputs. The paper has a ReLU after each convolution of this path; the authors' code has it only together with
    group norm. Ours has the ReLU without the norm.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        wiring: PathWiring = "paper",
        extra_levels: int = 0,
        extra: ExtraKind = "max_pool",
        extra_relu: bool = True,
    ) -> None:
        super().__init__()
        check_choice("wiring", wiring, get_args(PathWiring))
        self.wiring = wiring
        self.pyramid = FeaturePyramid(in_spec, out_channels)
        self.downsample, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        for name, step in level_steps(in_spec).items():
            self.downsample[name] = nn.Conv2d(out_channels, out_channels, 3, step, padding=1)
            self.fuse[name] = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        reset_convolutions(self.downsample)
        reset_convolutions(self.fuse)
        self.extra = ExtraLevels(in_spec, out_channels, extra_levels, extra, relu=extra_relu)
        self.out_spec: Spec = {**self.pyramid.out_spec, **self.extra.out_spec}
        self.coarsest = list(in_spec)[-1]

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        levels = self.bottom_up(self.pyramid(features))
        return {**levels, **self.extra(features[self.coarsest], levels[self.coarsest])}

    def bottom_up(self, levels: Features) -> Features:
        """Add to each level of the pyramid what comes from the finer ones."""
        out = dict(levels)
        below = next(iter(levels.values()))
        for name, downsample in self.downsample.items():
            coarse = downsample(below)
            if self.wiring == "paper":
                below = out[name] = self.fuse[name](coarse.relu() + levels[name]).relu()
            else:
                below = coarse + levels[name]
                out[name] = self.fuse[name](below)
        return out
