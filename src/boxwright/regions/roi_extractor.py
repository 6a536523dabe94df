"""How the features of a region are taken from a pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.layers.option_checks import check_choice
from boxwright.ops.roi_align import roi_align
from boxwright.regions.levels import Epsilon, region_levels

RoIExtractorKind = Literal["fpn_level", "adaptive", "soft"]
Fusion = Literal["max", "sum"]


class RoISource(NamedTuple):
    """Where the features of regions come from.

    Args:
        channels: of every level.
        strides: of the levels, fine to coarse, in pixels of the network's input.
        features: ``fpn_level``: from the one level that fits the region's size. ``adaptive``: from every level, for
            layers that have one copy per level and then fuse. ``soft``: from every level, summed with learned weights
            for each cell.
        level_epsilon: of ``fpn_level``, see ``region_levels``.
        fusion: of ``adaptive``, after the first layer: the largest value, or the sum.
    """

    channels: int
    strides: Sequence[int]
    features: RoIExtractorKind
    level_epsilon: Epsilon = "outside"
    fusion: Fusion = "max"


class RoIExtractor(nn.Module):
    """RoIAlign on one level, on all of them, or on their weighted sum.

    Args:
        source: the levels, and how they are used.
        output_size: cells per side of a region.
        sampling_ratio: samples per side of a cell.

    Source: Lin et al., Feature Pyramid Networks, equation 1 (``fpn_level``); Liu et al., PANet, CVPR 2018, section 3.2
    (``adaptive``); Guo et al., AugFPN, CVPR 2020, section 3.3 (``soft``). Checked level by level against torchvision
    0.29.2's ``roi_align``, and ``soft`` against SoftRoIExtractor of Gus-Guo/AugFPN, commit ffc7e5e: features and
    gradients. Differs with one level, which is weighed like several; there it is taken as it is.
    """

    def __init__(self, source: RoISource, *, output_size: int, sampling_ratio: int = 2) -> None:
        super().__init__()
        channels, strides, self.features, self.level_epsilon, _ = source
        check_choice("roi_extractor", self.features, get_args(RoIExtractorKind))
        check_choice("level_epsilon", self.level_epsilon, get_args(Epsilon))
        self.strides, self.output_size, self.sampling_ratio = list(strides), output_size, sampling_ratio
        self.num_outputs = len(self.strides) if self.features == "adaptive" else 1
        self.weigh: nn.Module = nn.Identity()
        if self.features == "soft":
            self.weigh = nn.Sequential(
                nn.Conv2d(len(self.strides) * channels, channels, 1),
                nn.ReLU(),
                nn.Conv2d(channels, len(self.strides), 3, padding=1),
                nn.Sigmoid(),
            )

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
    ) -> list[Float[Tensor, "r c s s"]]:
        """``num_outputs`` maps for each region.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network's input.
            images: the image of each box.
        """
        if self.features == "fpn_level":
            levels = region_levels(boxes, self.strides, epsilon=self.level_epsilon)
            return [self._pooled(maps, self.strides, boxes, images, levels)]
        # Each level by itself: together, all of them would be laid out anew for every one.
        first = torch.zeros_like(images)
        levelwise = zip(maps, self.strides, strict=True)
        each = [self._pooled([x], [stride], boxes, images, first) for x, stride in levelwise]
        if self.features == "adaptive":
            return each
        weights = self.weigh(torch.cat(each, 1)).split(1, 1)
        return [torch.stack([weight * x for weight, x in zip(weights, each, strict=True)]).sum(0)]

    def _pooled(
        self, maps: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, images: Tensor, levels: Tensor
    ) -> Tensor:
        size, ratio = self.output_size, self.sampling_ratio
        return roi_align(maps, strides, boxes, images, levels, output_size=size, sampling_ratio=ratio)


def fused(each: Sequence[Float[Tensor, r * n]], fusion: Fusion) -> Float[Tensor, r * n]:
    """The maps of a region as one: by the largest value, or by the sum."""
    if len(each) == 1:
        return each[0]
    together = torch.stack(list(each))
    return together.amax(0) if fusion == "max" else together.sum(0)
