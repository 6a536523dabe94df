"""Anchors: the boxes, or points, that dense heads predict from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from boxwright.ops.boxes import at_least_float32, iou

AnchorGrid = Literal["level", "padded_input"]


def octave_anchors(
    side: float, steps: int, ratios: Sequence[float], *, whole_pixels: bool = False
) -> Float[Tensor, "a 4"]:
    """Make corner boxes around the origin, of several sizes within one octave and several ratios.

    An anchor of ratio r has the sides s / sqrt(r) and s * sqrt(r), with s = side * 2^(i / steps), i = 0 .. steps - 1

    Args:
        side: of the smallest square, in pixels.
        steps: sizes, at least 1.
        ratios: height / width.
        whole_pixels: sides of squares are cut to whole pixels, and corners are rounded to them.

    Returns:
        All sizes of the first ratio, then of the next.

    Raises:
        ValueError: there is none, or one has no area.

    Source: Lin et al., RetinaNet, ICCV 2017, section 4. Checked against torchvision 0.29.2's AnchorGenerator, with
    whole pixels, and against mmdetection 3.3.0's, without.
    """
    if steps < 1 or not ratios or min(ratios) <= 0 or side <= 0:
        raise ValueError(
            "anchors need a positive scale, one step or more and positive ratios, "
            f"not a side of {side}, {steps} steps and ratios {list(ratios)}"
        )
    sizes = [side * 2 ** (i / steps) for i in range(steps)]
    squares = [float(int(size)) if whole_pixels else size for size in sizes]
    halves = [(square / ratio**0.5 / 2, square * ratio**0.5 / 2) for ratio in ratios for square in squares]
    if whole_pixels:
        halves = [(float(round(x)), float(round(y))) for x, y in halves]
    if min(map(min, halves)) <= 0:
        raise ValueError(f"anchors of {side:g} pixels have no area in whole pixels; make their scale larger")
    return torch.tensor([(-x, -y, x, y) for x, y in halves])


def level_anchors(
    strides: Sequence[int], make_anchors: Callable[[int], Float[Tensor, "a 4"]]
) -> Float[Tensor, "l a 4"]:
    """Make the anchors of the first cell of every level.

    Args:
        strides: of the levels, in pixels.
        make_anchors: from a stride to corner boxes in pixels, as many for each.
    """
    # Without storage, torch would import its compiler to compute them, which takes a second or two.
    with torch.device("cpu"):
        anchors = torch.stack([make_anchors(stride) for stride in strides])
    return anchors.to(torch.get_default_device())


def anchor_steps(shapes: Sequence[tuple[int, int]], strides: Sequence[int], grid: AnchorGrid) -> list[tuple[int, int]]:
    """Compute the pixels between the anchors of neighboring cells of each level, down and across.

    ``level``: the level's stride. ``padded_input``: the size of the network input divided by the number of cells,
    rounded down, as in torchvision: at 800 pixels 61 and 114 for the strides 64 and 128, whose 13 and 7 cells reach
    beyond the input. On inputs whose sides are multiples of the coarsest stride both are the same.

    Args:
        shapes: (height, width) of the map of each level, fine to coarse.
        strides: of the levels; the input is taken to be as large as the finest map times its stride.
        grid: one of the two.

    Source: ``padded_input``: torchvision 0.29.2's AnchorGenerator.
    """
    if grid == "level":
        return [(stride, stride) for stride in strides]
    (height, width), finest = shapes[0], strides[0]
    return [(height * finest // rows, width * finest // columns) for rows, columns in shapes]


def grid_anchors(
    base: Float[Tensor, "a 4"], height: int, width: int, stride: int | tuple[int, int]
) -> Float[Tensor, "n 4"]:
    """Lay base boxes over every cell of a map: corner boxes in pixels of the network input.

    Args:
        base: corner boxes around the cell whose top left corner is the origin.
        height: of the map, in cells.
        width: of the map, in cells.
        stride: pixels per cell, or those down and across.

    Returns:
        height * width * a boxes, row by row; all boxes of a cell after one another.

    Source: Ren et al., Faster R-CNN, NeurIPS 2015, section 3.1.1. Checked against torchvision's AnchorGenerator.
    """
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    y = torch.arange(height, device=base.device, dtype=base.dtype) * down
    x = torch.arange(width, device=base.device, dtype=base.dtype) * across
    corner = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), -1)  # h w 2
    return (corner.repeat(1, 1, 2)[:, :, None] + base).view(-1, 4)  # h w a 4 -> n 4


def pyramid_anchors(
    bases: Float[Tensor, "l a 4"], shapes: Sequence[tuple[int, int]], strides: Sequence[int], grid: AnchorGrid
) -> tuple[Float[Tensor, "_n 4"], ...]:
    """Lay the base boxes of each level over its cells, see ``grid_anchors``; in float32 at least.

    Args:
        bases: corner boxes of each level around the cell whose top left corner is the origin.
        shapes: (height, width) of the map of each level, fine to coarse.
        strides: of the levels.
        grid: see ``anchor_steps``.
    """
    levels = zip(at_least_float32(bases), shapes, anchor_steps(shapes, strides, grid), strict=True)
    return tuple([grid_anchors(base, height, width, step) for base, (height, width), step in levels])


def best_anchor_ious(
    bases: Float[Tensor, "l a 4"],
    strides: Sequence[int],
    grid: AnchorGrid,
    boxes: Float[Tensor, "n 4"],
    input_size: tuple[int, int],
) -> Float[Tensor, " n"]:
    """Compute the IoU of each box with the anchor, of any level, that overlaps it most.

    Of the copies of a base box on a grid the one whose middle is nearest, across and down, overlaps a box most, so
    that one copy is compared, and not one for every cell.

    Args:
        bases: corner boxes of each level around the cell whose top left corner is the origin.
        strides: of the levels, fine to coarse.
        grid: see ``anchor_steps``.
        boxes: corner boxes in pixels of the network input.
        input_size: (height, width) of the padded network input.
    """
    shapes = [(-(-input_size[0] // stride), -(-input_size[1] // stride)) for stride in strides]
    best = boxes.new_zeros(len(boxes))
    middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2  # n 1 2
    for base, (rows, columns), (down, across) in zip(bases, shapes, anchor_steps(shapes, strides, grid), strict=True):
        step, last = boxes.new_tensor([across, down]), boxes.new_tensor([columns - 1, rows - 1])
        cells = ((middles - (base[:, :2] + base[:, 2:]) / 2) / step).round().clamp(min=0).minimum(last)  # n a 2
        anchors = base + (cells * step).repeat(1, 1, 2)
        best = torch.maximum(best, iou(boxes[:, None], anchors).amax(1))
    return best
