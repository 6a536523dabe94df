"""AugFPN: a feature pyramid whose coarsest level gets context from several poolings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from boxwright.layers.feature_pyramid import ExtraKind, ExtraLevels, FeaturePyramid, reset_convolutions
from boxwright.ops.onnx_operators import onnx_pooled_context, operators_for_onnx
from boxwright.structures import Features, Level, Spec

__all__ = ["AugFPN"]


class AugFPN(nn.Module):
    """A feature pyramid whose coarsest lateral gets pooled context before the path down.

    lateral_L = conv1x1(c_L) + context(c_L) on the coarsest level; the rest is FPN.

    The laterals without context go out too, as auxiliary levels ``<name>_lateral`` after their level: a head may be
    trained on them (consistent supervision), and otherwise skips them. Pooling is over the whole map, so padding
    counts in the context.

    Args:
        in_spec: the levels that come in, fine to coarse; they keep their names.
        out_channels: width of every level that goes out.
        pool_ratios: sizes to which the coarsest level is pooled, each as a fraction of its height and width, in (0, 1].
            Where there is none, there is no context: FPN, whose laterals can still be trained on.
        extra_levels: levels to add beyond the coarsest, each half the size: 1 for P6, 2 for P6 and P7.
        extra: what they are made of. ``max_pool``: every second cell of the coarsest level that goes out. Convolutions
            of stride 2 on the coarsest level that comes in, ``conv_input`` (RetinaNet), or that goes out,
            ``conv_output`` (FCOS).
        extra_relu: a ReLU before each convolution of extra levels but the first.
        extra_context: the mean of the context is added to the first extra level, as in the authors' RetinaNet and FCOS.

    Raises:
        ValueError: an option is out of range, or ``extra_context`` has no level to be added to, or no context.

    Source: Guo et al., AugFPN, CVPR 2020, section 3.2 (residual feature augmentation), and the laterals of section 3.1.
    Checked against HighFPN and, with ``extra_context``, HighFPNRetinanet of Gus-Guo/AugFPN, commit ffc7e5e: same
    weights, same outputs. Differs in upsampling to the size of the finer level, so that sizes need not be even, and in
    the initial weights, which are those of FPN. Theirs has the ReLU between extra levels in FCOS only.
    """

    def __init__(
        self,
        in_spec: Spec,
        *,
        out_channels: int = 256,
        pool_ratios: tuple[float, ...] = (0.1, 0.2, 0.3),
        extra_levels: int = 0,
        extra: ExtraKind = "max_pool",
        extra_relu: bool = True,
        extra_context: bool = False,
    ) -> None:
        super().__init__()
        if extra_context and extra_levels < 1:
            raise ValueError(f"extra_context needs extra_levels of at least 1, not {extra_levels}")
        if extra_context and not pool_ratios:
            raise ValueError("extra_context adds the mean of the context, and without pool_ratios there is none")
        self.extra_context = extra_context
        self.coarsest = list(in_spec)[-1]
        self.pyramid = FeaturePyramid(in_spec, out_channels)
        channels = in_spec[self.coarsest].channels
        self.context = PooledContext(channels, out_channels, pool_ratios) if pool_ratios else None
        self.extra = ExtraLevels(in_spec, out_channels, extra_levels, extra, relu=extra_relu)
        self.out_spec: Spec = {}
        for name, level in self.pyramid.out_spec.items():
            self.out_spec[name] = level
            self.out_spec[f"{name}_lateral"] = Level(out_channels, level.stride, auxiliary=True)
        self.out_spec.update(self.extra.out_spec)

    def forward(self, features: Features, padding_mask: Bool[Tensor, "b h w"] | None = None) -> Features:
        coarsest = features[self.coarsest]
        laterals = augmented = self.pyramid.laterals(features)
        shift = None
        if self.context is not None:
            context = self.context(coarsest)
            augmented = {**laterals, self.coarsest: laterals[self.coarsest] + context}
            shift = context.mean((2, 3), keepdim=True) if self.extra_context else None
        levels = self.pyramid.smooth_levels(self.pyramid.top_down(augmented))
        levels |= self.extra(coarsest, levels[self.coarsest], shift)
        levels |= {f"{name}_lateral": lateral for name, lateral in laterals.items()}
        return {name: levels[name] for name in self.out_spec}


class PooledContext(nn.Module):
    """Means of a map over windows of several sizes, summed with a weight per cell and size.

    y_i = bilinear(conv1x1_i(mean-pool_i(x)));  out = sum_i sigmoid(conv3x3(relu(conv1x1([y_1, ..., y_n]))))_i y_i

    Args:
        in_channels: of the map.
        out_channels: of the context.
        ratios: pooled sizes as fractions of height and width, rounded down, one cell at least.
    """

    def __init__(self, in_channels: int, out_channels: int, ratios: Sequence[float]) -> None:
        super().__init__()
        if not all(0 < ratio <= 1 for ratio in ratios):
            raise ValueError(f"pool_ratios are numbers in (0, 1], not {tuple(ratios)}")
        self.ratios = tuple(ratios)
        self.project = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in ratios)
        self.weigh = nn.Sequential(
            nn.Conv2d(len(ratios) * out_channels, out_channels, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels, len(ratios), 3, padding=1),
        )
        reset_convolutions(self)

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h w"]:
        height, width = x.shape[-2:]
        contexts = []
        for ratio, project in zip(self.ratios, self.project, strict=True):
            if operators_for_onnx():
                contexts.append(onnx_pooled_context(x, project.weight, project.bias, ratio))
                continue
            pooled = project(F.adaptive_avg_pool2d(x, pooled_size(height, width, ratio)))
            contexts.append(F.interpolate(pooled, size=(height, width), mode="bilinear", align_corners=True))
        weights = self.weigh(torch.cat(contexts, 1)).sigmoid().split(1, 1)
        return torch.stack([weight * y for weight, y in zip(weights, contexts, strict=True)]).sum(0)


def pooled_size(height: int, width: int, ratio: float) -> tuple[int, int]:
    """Compute the cells that a map is pooled to: 7 x 10 of 25 x 34 at 0.3."""
    return max(1, int(height * ratio)), max(1, int(width * ratio))
