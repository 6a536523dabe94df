"""Modules of the pyramid necks: laterals, the path down, levels beyond the coarsest."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv import ConvNorm
from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_choice, check_counts
from boxwright.structures import Features, Level, Spec, coarser_name

PyramidNorm = Literal["none", "batch"]
ExtraKind = Literal["max_pool", "conv_input", "conv_output"]


class FeaturePyramid(nn.Module):
    """Coarse levels are upsampled and added to the finer ones; each sum is smoothed.

    top_l = conv1x1(c_l) + nearest(top_{l+1});  out_l = conv3x3(top_l)

    Args:
        in_spec: the levels that come in, fine to coarse; they keep their names.
        channels: width of every level that goes out, at least 1.
        norm: after every convolution: ``none``, or ``batch`` (torchvision's V2 detectors).

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 3. Checked against
    torchvision.ops.FeaturePyramidNetwork.
    """

    def __init__(self, in_spec: Spec, channels: int, norm: PyramidNorm = "none") -> None:
        super().__init__()
        check_counts({"out_channels": channels})
        check_choice("norm", norm, get_args(PyramidNorm))
        self.out_spec: Spec = {name: Level(channels, level.stride) for name, level in in_spec.items()}
        self.lateral, self.smooth = nn.ModuleDict(), nn.ModuleDict()
        for name, level in in_spec.items():
            if norm == "batch":
                self.lateral[name], self.smooth[name] = (
                    ConvNorm(level.channels, channels, 1),
                    ConvNorm(channels, channels, 3),
                )
            else:
                self.lateral[name] = nn.Conv2d(level.channels, channels, 1)
                self.smooth[name] = nn.Conv2d(channels, channels, 3, padding=1)
        reset_convolutions(self)

    def laterals(self, features: Features) -> Features:
        """Bring each level to the width of the pyramid."""
        return {name: lateral(features[name]) for name, lateral in self.lateral.items()}

    def top_down(self, laterals: Features) -> Features:
        """Add to each level all coarser ones, not smoothed yet."""
        sums: Features = {}
        above: Tensor | None = None
        for name in reversed(laterals):
            lateral = laterals[name]
            above = lateral if above is None else lateral + F.interpolate(above, size=lateral.shape[-2:])
            sums[name] = above
        return {name: sums[name] for name in laterals}

    def smooth_levels(self, sums: Features) -> Features:
        """Apply one convolution, and norm, to each level."""
        levels: Features = {}
        for name, smooth in self.smooth.items():
            conv = smooth.conv if isinstance(smooth, ConvNorm) else smooth
            assert isinstance(conv, nn.Conv2d)
            (x,) = conv_over_levels(conv, [sums[name]])
            levels[name] = smooth.norm(x) if isinstance(smooth, ConvNorm) else x
        return levels

    def forward(self, features: Features) -> Features:
        return self.smooth_levels(self.top_down(self.laterals(features)))


class ExtraLevels(nn.Module):
    """Levels beyond the coarsest, each half the size of the one before: P6, P7.

    Args:
        in_spec: the levels that came into the neck, fine to coarse.
        channels: width of the levels that go out.
        count: how many to add; 0 for none.
        kind: ``max_pool`` takes every second cell of the coarsest level that went out. ``conv_input`` and
            ``conv_output`` are convolutions of stride 2, the first on the coarsest level that came in or that went
            out, each next one on the ReLU of the one before.
        relu: before each convolution after the first, as said; without, each takes the one before as it is.

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, section 4.1, footnote 3 (``max_pool``); Lin et al.,
    RetinaNet, ICCV 2017, section 4, footnote 2 (``conv_input``); Tian et al., FCOS, ICCV 2019, section 3.2
    (``conv_output``). Checked against torchvision's LastLevelMaxPool and LastLevelP6P7.
    """

    def __init__(self, in_spec: Spec, channels: int, count: int, kind: ExtraKind, *, relu: bool = True) -> None:
        super().__init__()
        check_counts({"extra_levels": count}, least=0)
        check_choice("extra", kind, get_args(ExtraKind))
        self.kind, self.relu = kind, relu
        name, level = list(in_spec.items())[-1]
        stride, width = level.stride, level.channels if kind == "conv_input" else channels
        self.out_spec: Spec = {}
        self.convs = nn.ModuleDict()
        for _ in range(count):
            name, stride = coarser_name(name), stride * 2
            self.out_spec[name] = Level(channels, stride)
            if kind != "max_pool":
                self.convs[name] = nn.Conv2d(width, channels, 3, 2, padding=1)
            width = channels
        reset_convolutions(self)

    def forward(
        self,
        coarsest_in: Float[Tensor, "b c_in h w"],
        coarsest_out: Float[Tensor, "b c h w"],
        shift: Float[Tensor, "b c 1 1"] | None = None,
    ) -> Features:
        """Make the extra levels alone, from the coarsest level before and after the neck.

        Args:
            coarsest_in: what came into the neck.
            coarsest_out: what the neck made of it.
            shift: added to every cell of the first extra level, before the next one is made of it.
        """
        x = coarsest_in if self.kind == "conv_input" else coarsest_out
        levels: Features = {}
        for name in self.out_spec:
            if self.kind == "max_pool":
                x = F.max_pool2d(x, kernel_size=1, stride=2)
            else:
                x = self.convs[name](x.relu() if levels and self.relu else x)
            if shift is not None and not levels:
                x = x + shift
            levels[name] = x
        return levels


def level_steps(spec: Spec) -> dict[str, int]:
    """Count the cells of the level before that lie along a cell of each level but the finest.

    Args:
        spec: the levels, fine to coarse.

    Raises:
        ValueError: the stride of a level is no multiple of that of the one before.
    """
    steps = {}
    for (_, fine), (name, coarse) in pairwise(spec.items()):
        if coarse.stride % fine.stride:
            raise ValueError(f"stride {coarse.stride} of {name} is no multiple of {fine.stride}, the level before")
        steps[name] = coarse.stride // fine.stride
    return steps


def reset_convolutions(neck: nn.Module) -> None:
    """Start every convolution as Detectron starts a pyramid's: uniform weights of variance 1 / fan-in, no bias."""
    for module in neck.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
