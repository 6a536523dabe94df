"""RoI extractor: features of regions from a pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from boxwright.ops.boxes import area
from boxwright.ops.roi_align import roi_align
from boxwright.regions.options import Fusion, LevelEpsilon, RoIOptions


class RoISource(NamedTuple):
    """Levels that features of regions are extracted from.

    Args:
        channels: of every level.
        strides: of the levels, fine to coarse, in pixels of the network input.
        options: of the extraction.
    """

    channels: int
    strides: Sequence[int]
    options: RoIOptions = RoIOptions()


class RoIExtractor(nn.Module):
    """RoIAlign on one level, on all of them, or on their weighted sum.

    Args:
        source: the levels, and how they are used.
        output_size: cells per side of a region.

    Source: Lin et al., Feature Pyramid Networks, equation 1 (``fpn_level``); Liu et al., PANet, CVPR 2018, section 3.2
    (``adaptive``); Guo et al., AugFPN, CVPR 2020, section 3.3 (``soft``). Checked level by level against torchvision
    0.29.2's ``roi_align``, and ``soft`` against SoftRoIExtractor of Gus-Guo/AugFPN, commit ffc7e5e: features and
    gradients. Differs with one level, which is weighed like several; there it is taken as it is.
    """

    def __init__(self, source: RoISource, *, output_size: int) -> None:
        super().__init__()
        self.strides, self.options = list(source.strides), source.options
        self.output_size = output_size
        self.num_outputs = len(self.strides) if self.options.extractor == "adaptive" else 1
        self.weigh: nn.Module = nn.Identity()
        if self.options.extractor == "soft":
            self.weigh = nn.Sequential(
                nn.Conv2d(len(self.strides) * source.channels, source.channels, 1),
                nn.ReLU(),
                nn.Conv2d(source.channels, len(self.strides), 3, padding=1),
                nn.Sigmoid(),
            )

    def forward(
        self,
        maps: Sequence[Float[Tensor, "b c _h _w"]],
        boxes: Float[Tensor, "r 4"],
        images: Int[Tensor, " r"],
    ) -> list[Float[Tensor, "r c s s"]]:
        """Extract ``num_outputs`` maps for each region.

        Args:
            maps: of each level.
            boxes: corner boxes in pixels of the network input.
            images: the image of each box.
        """
        align = self._align()
        if self.options.extractor == "fpn_level":
            levels = region_levels(boxes, self.strides, epsilon=self.options.level_epsilon)
            return [align(maps, self.strides, boxes, images, levels)]
        each = self._align_each(maps, boxes, images)
        if self.options.extractor == "adaptive":
            return each
        weights = self.weigh(torch.cat(each, 1)).split(1, 1)
        return [torch.stack([weight * x for weight, x in zip(weights, each, strict=True)]).sum(0)]

    def level_weights(
        self, maps: Sequence[Float[Tensor, "b c _h _w"]], boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> Float[Tensor, "r l"]:
        """Compute the weight of each level in each region's features, in [0, 1]; of ``soft``, the mean over cells.

        Args:
            maps: as for ``forward``.
            boxes: likewise.
            images: likewise.
        """
        if self.options.extractor == "soft":
            weights = self.weigh(torch.cat(self._align_each(maps, boxes, images), 1))
            return cast(Tensor, weights).float().mean((2, 3))
        levels = region_levels(boxes, self.strides, epsilon=self.options.level_epsilon)
        return F.one_hot(levels, len(self.strides)).float()

    def _align(self) -> Callable[..., Float[Tensor, "r c s s"]]:
        return partial(
            roi_align,
            output_size=self.output_size,
            sampling_ratio=self.options.sampling_ratio,
            aligned=self.options.aligned,
        )

    def _align_each(
        self, maps: Sequence[Float[Tensor, "b c _h _w"]], boxes: Float[Tensor, "r 4"], images: Int[Tensor, " r"]
    ) -> list[Float[Tensor, "r c s s"]]:
        # Each level by itself: together, all of them would be laid out anew for every one.
        align, first = self._align(), torch.zeros_like(images)
        levels_and_strides = zip(maps, self.strides, strict=True)
        return [align([x], [stride], boxes, images, first) for x, stride in levels_and_strides]


def fuse_maps(each: Sequence[Float[Tensor, " r *n"]], fusion: Fusion) -> Float[Tensor, " r *n"]:
    """Fuse the maps of a region to one: by the largest value, or by the sum."""
    if len(each) == 1:
        return each[0]
    together = torch.stack(list(each))
    return together.amax(0) if fusion == "max" else together.sum(0)


def region_strides(strides: Sequence[int], coarsest: int) -> list[int]:
    """Select the levels that features of regions are extracted from; those beyond are for proposals alone, as P6.

    Levels beyond ``coarsest`` are; so are levels beyond a stride that two share. A dilated backbone keeps its stride to
    its end, so that what is coarser was added to it, as P6 of strides 4, 8, 16, 16, 32.

    Args:
        strides: of the levels, fine to coarse.
        coarsest: the coarsest one of those.
    """
    shared = [stride for stride, following in pairwise(strides) if stride == following]
    last = min([coarsest, *shared[-1:]])
    # A pyramid that begins beyond has no other levels to look at.
    return [stride for stride in strides if stride <= last] or list(strides[:1])


def region_levels(
    boxes: Float[Tensor, "r 4"],
    strides: Sequence[int],
    *,
    canonical_side: float = 224.0,
    canonical_stride: int = 16,
    epsilon: LevelEpsilon = "outside",
) -> Int[Tensor, " r"]:
    """Assign each box to a level, an index of ``strides``: regions of one size look alike on their levels.

    k = floor(k0 + log2(sqrt(w h) / 224)), where the level of stride 2^k is meant and 2^k0 is ``canonical_stride``; the
    finest or coarsest level where there is none so fine or so coarse. Of levels with one stride the last is taken.

    Args:
        boxes: corner boxes in pixels of the network input.
        strides: of the levels, fine to coarse.
        canonical_side: side of a square that belongs to the canonical level, in pixels.
        canonical_stride: stride of that level.
        epsilon: where 1e-6 is added against rounding: to the logarithm (torchvision), or to its argument (Detectron).

    Source: Lin et al., Feature Pyramid Networks, CVPR 2017, equation 1. Checked against torchvision 0.29.2's
    LevelMapper. Detectron's differs on boxes of just under a power of two times the canonical side.
    """
    # The first stride that is at least so coarse, and of its levels the last, whose features have seen the most.
    ends = {stride: index for index, stride in enumerate(strides)}
    side = area(boxes).clamp(min=0).sqrt() / canonical_side
    if epsilon == "outside":
        steps = torch.log2(side.clamp(min=torch.finfo(side.dtype).tiny)) + 1e-6
    else:
        steps = torch.log2(side + 1e-6)
    stride = canonical_stride * 2.0 ** steps.floor().clamp(-16, 16)
    coarseness = torch.tensor(list(ends), device=boxes.device, dtype=stride.dtype)
    # The number of strides below; not bucketize, which ONNX has not. What is not a number is above all.
    indices = (~(stride[:, None] <= coarseness)).sum(-1).clamp(max=len(ends) - 1)
    return torch.tensor(list(ends.values()), device=boxes.device)[indices]
