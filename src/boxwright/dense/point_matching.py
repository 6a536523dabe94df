"""Matching of points with objects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.box_matching import BACKGROUND
from boxwright.ops.boxes import area


def scale_ranges(strides: Sequence[int]) -> list[tuple[float, float]]:
    """Compute the least and largest distance, in pixels, that the points of each level are trained to predict.

    The level of stride s takes those from 4 s to 8 s, the first from 0, the last to infinity. Where a level has more
    than twice the stride of the one before, it starts where that one ends.

    Args:
        strides: of the levels, fine to coarse.

    Source: Tian et al., FCOS, ICCV 2019, section 3.2, whose 64, 128, 256 and 512 these are for strides of 8 to 128.
    """
    before = [0, *strides[:-1]]
    ranges = [(float(min(4 * s, 8 * finer)), 8.0 * s) for finer, s in zip(before, strides, strict=True)]
    return [*ranges[:-1], (ranges[-1][0], float("inf"))]


def match_points(
    points: Float[Tensor, "a 2"],
    boxes: Float[Tensor, "n 4"],
    *,
    scale_range: tuple[float, float] = (0.0, float("inf")),
    radius: float = float("inf"),
) -> Int[Tensor, " a"]:
    """Match each point of a level with an object: its index, or ``BACKGROUND`` (-1).

    A point may be matched with an object where it lies inside its box, near enough to the box's center, and where the
    farthest side of the box is at a distance that the level predicts. Of several objects it is matched with the
    smallest, the first of equals.

    Args:
        points: (x, y).
        boxes: of the objects, corner boxes.
        scale_range: least and largest distance to the farthest side; both belong to the range.
        radius: distance to the box's center, across and down, that a point keeps below.

    Source: Tian et al., FCOS, ICCV 2019, section 3.2; center sampling is from the TPAMI 2020 version.
    Checked against torchvision 0.29.2's FCOS. Differs in the bounds of the range, which torchvision leaves out on
    either level and the paper counts on both, and in comparing areas as they are: torchvision rounds them to 8 square
    pixels.
    """
    if not len(boxes):
        return torch.full((len(points),), BACKGROUND, device=points.device)
    by_area = area(boxes).argsort(stable=True)
    sorted_boxes = boxes[by_area, :, None]  # n 4 1
    (x, y), (x1, y1, x2, y2) = points.unbind(-1), sorted_boxes.unbind(1)
    matched = (x > x1) & (x < x2) & (y > y1) & (y < y2)  # n a
    matched &= ((x - (x1 + x2) / 2).abs() < radius) & ((y - (y1 + y2) / 2).abs() < radius)
    farthest = torch.maximum(torch.maximum(x - x1, x2 - x), torch.maximum(y - y1, y2 - y))
    matched &= (farthest >= scale_range[0]) & (farthest <= scale_range[1])
    indices = torch.arange(len(boxes), device=boxes.device, dtype=torch.int32)[:, None]
    first = torch.where(matched, indices, len(boxes)).amin(0).long()
    return torch.cat((by_area, by_area.new_tensor([BACKGROUND])))[first]
