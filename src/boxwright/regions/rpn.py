"""Region proposal network: where there may be an object of any class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boxwright.layers.conv_over_levels import conv_over_levels
from boxwright.layers.option_checks import check_counts
from boxwright.layers.predictions import flatten_predictions, prediction_conv, run_in_full_precision
from boxwright.ops.anchors import grid_anchors, octave_anchors
from boxwright.ops.boxes import at_least_float32


class RPNOutput(NamedTuple):
    """What is said of every anchor, level by level, fine to coarse.

    ``logits`` are of there being an object; ``deltas`` are deviations from ``anchors``, which are corner boxes in
    pixels of the network's input.
    """

    logits: tuple[Float[Tensor, "b _n"], ...]
    deltas: tuple[Float[Tensor, "b _n 4"], ...]
    anchors: tuple[Float[Tensor, "_n 4"], ...]


class RPN(nn.Module):
    """3 x 3 convolutions with ReLU, then one number for "object" and four for its box, for each anchor.

    Args:
        channels: width of every level.
        strides: of the levels, in pixels of the network's input.
        anchor_scale: side of a level's square anchor, in strides.
        ratios: height / width of the anchors of a cell.
        num_convs: 3 x 3 convolutions.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1, over levels as in Lin et al., Feature Pyramid Networks,
    CVPR 2017, section 4.1. Checked against torchvision 0.29.2's RPNHead and AnchorGenerator.
    """

    base_anchors: Tensor

    def __init__(
        self,
        channels: int,
        strides: Sequence[int],
        *,
        anchor_scale: float = 8.0,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        num_convs: int = 1,
    ) -> None:
        super().__init__()
        check_counts({"rpn_convs": num_convs})
        self.strides = list(strides)
        base = [octave_anchors(anchor_scale * stride, 1, ratios, whole_pixels=True) for stride in strides]
        self.register_buffer("base_anchors", torch.stack(base), persistent=False)
        self.convs = nn.ModuleList(prediction_conv(channels, channels) for _ in range(num_convs))
        self.logits, self.deltas = nn.Conv2d(channels, len(ratios), 1), nn.Conv2d(channels, len(ratios) * 4, 1)
        for conv in (self.logits, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Float[Tensor, "b c _h _w"]]) -> RPNOutput:
        levels = list(maps)
        for conv in self.convs:
            assert isinstance(conv, nn.Conv2d)
            levels = [x.relu() for x in conv_over_levels(conv, levels)]
        logits = [x.squeeze(-1) for x in flatten_predictions([self.logits(x) for x in levels], 1)]
        deltas = flatten_predictions([run_in_full_precision(self.deltas, x) for x in levels], 4)
        bases = at_least_float32(self.base_anchors)
        anchors = (
            grid_anchors(base, x.shape[-2], x.shape[-1], stride)
            for base, x, stride in zip(bases, levels, self.strides, strict=True)
        )
        return RPNOutput(tuple(logits), tuple(deltas), tuple(anchors))
