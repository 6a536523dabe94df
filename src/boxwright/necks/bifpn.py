"""Bidirectional feature pyramid with weighted fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.feature_pyramid import level_steps
from boxwright.layers.option_checks import check_choice, check_counts, check_fractions
from boxwright.layers.same_padding import max_pool_same
from boxwright.layers.separable_conv import SeparableConv, pointwise_norm
from boxwright.structures import Features, Level, Spec, coarser_name

__all__ = ["BiFPN"]

WeightedFusion = Literal["fast", "softmax", "sum"]
SwishPosition = Literal["before_conv", "after_norm"]


class BiFPN(nn.Module):
    """Cells with a path down and a path up; every node fuses two or three levels, then a separable convolution.

    With x_l from the cell before, L the coarsest level, d_L = x_L, and o_l = d_l on the finest level:

    d_l = node(x_l, upsample(d_{l+1}));
    o_l = node(x_l, d_l, downsample(o_{l-1}));  o_L = node(x_L, downsample(o_{L-1}))

    node(x_1, ..., x_n) = swish(norm(conv(sum_i s_i x_i))), with learned weights s_i per node. Upsampling takes the
    nearest cell, downsampling the largest of a window. In the first cell, a level of another width has a 1 x 1
    convolution and a norm for each node that it goes to. Levels beyond the coarsest are downsampled from it at the
    width of the neck.

    Args:
        in_spec: the levels that come in, fine to coarse; they keep their names.
        out_channels: width of every level that goes out: 64, 88, 112, 160, 224, 288 and 384 in EfficientDet D0 to D6,
            and 384 from there on.
        repeats: how many cells: 3, 4, 5, 6, 7, 7 and 8 in D0 to D6, and 8 from there on.
        num_levels: as many levels go out at least, the missing ones beyond the coarsest; 5 for P3 to P7 (6 in D7x).
        fusion: how the weights s follow from the parameters w of a node. ``fast``: relu(w_i) / (1e-4 + sum of relu(w)),
            which the paper prefers. ``softmax``: of w. ``sum``: no parameters, every weight is 1; D6 and up.
        activation: position of the swish in a node: ``after_norm``, as the paper has it, or ``before_conv``, as the
            published models do.
        norm_momentum: of the running statistics of batch norms, the weight of the newest batch, in (0, 1].

    Raises:
        ValueError: an option is out of range, or the stride of a level is no multiple of that of the one before.

    Source: Tan et al., EfficientDet, CVPR 2020, section 3 and table 1. Checked against BiFpn of effdet 0.4.1, whose
    weights are google/automl's: same weights, same outputs and gradients. The paper describes weighted fusion for all
    models; the code sums in D6 and up. Convolutions have a bias in both positions of the swish, as the published
    weights do; effdet has none with ``after_norm``, where the norm takes it away again just as well.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 64,
        repeats: int = 3,
        num_levels: int = 5,
        fusion: WeightedFusion = "fast",
        activation: SwishPosition = "after_norm",
        norm_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        check_counts({"out_channels": out_channels, "repeats": repeats})
        check_counts({"num_levels": num_levels}, least=2)
        check_choice("fusion", fusion, get_args(WeightedFusion))
        check_choice("activation", activation, get_args(SwishPosition))
        check_fractions({"norm_momentum": norm_momentum}, zero=False)
        self.incoming = list(in_spec)
        spec = dict(in_spec)
        name, level = list(in_spec.items())[-1]
        missing = num_levels - len(in_spec)
        self.project = _to_width(level.channels, out_channels) if missing > 0 else nn.Identity()
        for _ in range(missing):
            name, level = coarser_name(name), Level(out_channels, 2 * level.stride)
            spec[name] = level
        self.out_spec: Spec = {name: Level(out_channels, level.stride) for name, level in spec.items()}
        self.added = list(spec)[len(in_spec) :]
        self.cells = nn.ModuleList(
            BiFPNCell(self.out_spec if i else spec, out_channels, fusion, activation) for i in range(repeats)
        )

        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        levels = {name: features[name] for name in self.incoming}
        coarsest = self.project(features[self.incoming[-1]])
        for name in self.added:
            coarsest = levels[name] = max_pool_same(coarsest, 2)
        for cell in self.cells:
            levels = cell(levels)
        return levels


class BiFPNCell(nn.Module):
    """One path down and one path up.

    Args:
        spec: the levels, fine to coarse; at least two.
        channels: width of every level that goes out.
        fusion: as in ``BiFPN``.
        activation: as in ``BiFPN``.

    Raises:
        ValueError: the stride of a level is no multiple of that of the one before.
    """

    def __init__(self, spec: Spec, channels: int, fusion: WeightedFusion, activation: SwishPosition) -> None:
        super().__init__()
        self.steps = level_steps(spec)
        self.down, self.up = nn.ModuleDict(), nn.ModuleDict()
        widths = {name: level.channels for name, level in spec.items()}
        *names, coarsest = spec
        above, step = widths[coarsest], self.steps[coarsest]
        for name in reversed(names):
            self.down[name] = FusionNode([widths[name], above], channels, fusion, activation, upsample=step > 1)
            above, step = channels, self.steps.get(name, 1)
        for name in names[1:]:
            self.up[name] = FusionNode([widths[name], channels, channels], channels, fusion, activation)
        self.up[coarsest] = FusionNode([widths[coarsest], channels], channels, fusion, activation)

    def forward(self, levels: Features) -> Features:
        down: Features = {}
        above = list(levels.values())[-1]
        for name, node in self.down.items():
            above = down[name] = node([levels[name], above])
        out = {name: down.get(name, x) for name, x in levels.items()}
        below = next(iter(out.values()))
        for name, node in self.up.items():
            inputs = [levels[name], down[name]] if name in down else [levels[name]]
            below = out[name] = node([*inputs, max_pool_same(below, self.steps[name])])
        return out


class FusionNode(nn.Module):
    """The weighted sum of maps, and a separable convolution of it.

    Args:
        in_channels: widths of the maps that are fused.
        channels: of the output.
        fusion: as in ``BiFPN``.
        activation: as in ``BiFPN``.
        upsample: the last map is coarser than the first.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        fusion: WeightedFusion,
        activation: SwishPosition,
        *,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.fusion, self.upsample = fusion, upsample
        self.projections = nn.ModuleList(_to_width(width, channels) for width in in_channels)
        self.weights = None if fusion == "sum" else nn.Parameter(torch.ones(len(in_channels)))
        self.conv = SeparableConv(channels, channels, norm=True)
        self.before = nn.SiLU() if activation == "before_conv" else nn.Identity()
        self.after = nn.SiLU() if activation == "after_norm" else nn.Identity()

    def forward(self, maps: Sequence[Float[Tensor, "b _c _h _w"]]) -> Float[Tensor, "b c h w"]:
        """Fuse maps at the size of the first, to which the last one is upsampled where it is coarser."""
        inputs = [project(x) for project, x in zip(self.projections, maps, strict=True)]
        if self.upsample:
            inputs[-1] = F.interpolate(inputs[-1], size=maps[0].shape[-2:])
        out: Tensor = self.after(self.conv(self.before(self.fuse(inputs))))
        return out

    def fuse(self, inputs: Sequence[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
        """Sum the inputs, each times its weight."""
        weights = self.normalize_weights()
        terms = inputs if weights is None else [x * weight for x, weight in zip(inputs, weights, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def normalize_weights(self) -> Float[Tensor, " n"] | None:
        """Compute the weight of each input in the sum; None where every one is 1."""
        if self.weights is None:
            return None
        if self.fusion == "softmax":
            return self.weights.softmax(0)
        positive = self.weights.relu()
        return positive / (positive.sum() + 1e-4)


def _to_width(channels: int, width: int) -> nn.Module:
    return nn.Identity() if channels == width else pointwise_norm(channels, width)
