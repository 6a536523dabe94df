"""Recursive feature pyramid of mmdetection's DetectoRS, with the standardization of its weights folded into them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from boxwright.weights.projects.mmdet import Parts, Tensors, count_numbered, describe_resnet
from boxwright.weights.projects.mmdet_config import MMDetConfig
from boxwright.weights.table import Row

_EPS = 1e-5

_CONVS = ("conv1", "layer{n}.{m}.conv{k}", "layer{n}.{m}.downsample.0")
_NORMS = ("bn1", "layer{n}.{m}.bn{k}", "layer{n}.{m}.downsample.1")


@dataclass(frozen=True)
class FoldStandardization:
    """A weight, and the scale and shift that it has after it was standardized, output channel by channel.

    Source: ``ConvAWS2d`` of mmcv 2.1.0; Qiao et al., Weight Standardization, 2019.
    """

    needs_all: bool = True

    def read(self, tensors: Sequence[Tensor]) -> Tensor:
        """Standardize the weight, scale and shift it."""
        weight, scale, shift = tensors
        mean, std = _statistics(weight)
        return scale * ((weight - mean) / std) + shift

    def write(self, tensor: Tensor, count: int) -> Sequence[Tensor]:
        """Give the weight, and as scale and shift what standardizing takes away."""
        del count
        mean, std = _statistics(tensor)
        return [tensor, std, mean]


def describe_rfp(tensors: Tensors, config: MMDetConfig) -> Parts:
    """Describe two ResNets, the pyramid over both, and what the second gets of the first one's."""
    resnet = describe_resnet(tensors, config).overrides
    resnet.pop("backbone.stride_in")
    laterals = count_numbered(tensors, "neck.lateral_convs.{}.conv.weight")
    levels = [f"c{6 - laterals + index}" for index in range(laterals)]
    rows = [*_resnet_rows("backbone", 0), *_resnet_rows("neck.rfp_modules.0", 1)]
    rows.append(Row("neck.rfp_modules.0.layer{n}.0.rfp_conv.{*}", "backbone.feedback.0.c{n+1}.{*}"))
    for index, level in enumerate(levels):
        rows.append(Row(f"neck.lateral_convs.{index}.conv.{{*}}", f"backbone.pyramid.lateral.{level}.{{*}}"))
        rows.append(Row(f"neck.fpn_convs.{index}.conv.{{*}}", f"backbone.pyramid.smooth.{level}.{{*}}"))
    rows += [Row(f"neck.rfp_aspp.aspp.{index}.{{*}}", f"backbone.aspp.views.{index}.{{*}}") for index in range(3)]
    rows.append(Row("neck.rfp_aspp.aspp.3.{*}", "backbone.aspp.whole.{*}"))
    rows.append(Row("neck.rfp_weight.{*}", "backbone.fusion.{*}"))
    overrides = {
        **resnet,
        "backbone.atrous": "none",
        "backbone.levels": levels,
        "backbone.out_channels": len(tensors["neck.fpn_convs.0.conv.weight"]),
        "backbone.extra_levels": int(config.number("model.neck.num_outs", laterals + 1)) - laterals,
    }
    return Parts(overrides, rows)


def _resnet_rows(theirs: str, index: int) -> list[Row]:
    ours = f"backbone.bodies.{index}"
    parts = ("weight", "weight_gamma", "weight_beta")
    convs = [
        Row(tuple(f"{theirs}.{conv}.{part}" for part in parts), f"{ours}.{conv}.weight", FoldStandardization())
        for conv in _CONVS
    ]
    return [*convs, *(Row(f"{theirs}.{norm}.{{*}}", f"{ours}.{norm}.{{*}}") for norm in _NORMS)]


def _statistics(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Compute mean and standard deviation of each output channel, (c 1 1 1)."""
    flat = weight.flatten(1)
    std = torch.sqrt(flat.var(dim=1) + _EPS)
    return flat.mean(dim=1).view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)
