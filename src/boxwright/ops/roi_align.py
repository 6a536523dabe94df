"""RoIAlign: bilinear samples of regions of feature maps, averaged over a fixed grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from boxwright.ops.onnx_operators import onnx_roi_align, operators_for_onnx

RoIBackend = Literal["auto", "embedding_bag", "torchvision"]


class Grid(NamedTuple):
    """Grid of a region: cells per side, samples per side of a cell, and whether cells are aligned by their centers."""

    output_size: int
    sampling_ratio: int
    aligned: bool


def roi_align(
    maps: Sequence[Float[Tensor, "b c _h _w"]],
    strides: Sequence[int],
    boxes: Float[Tensor, "r 4"],
    images: Int[Tensor, " r"],
    levels: Int[Tensor, " r"],
    *,
    output_size: int,
    sampling_ratio: int = 2,
    aligned: bool = False,
    backend: RoIBackend = "auto",
) -> Float[Tensor, "r c s s"]:
    """Extract ``output_size`` x ``output_size`` cells of each region from its level.

    A cell is the mean of ``sampling_ratio`` x ``sampling_ratio`` bilinear samples, evenly spaced in it; with 0, of
    ceil(region / output_size) along each side, one for each cell of the map. Samples more than a cell outside of the
    map count as 0, those at its rim as the rim. Boxes get no gradient.

    Both backends give the same numbers. ``embedding_bag`` makes each cell a bag of weighted rows of the table of all
    levels, which is fast on a CPU in both directions. ``torchvision`` calls that operator level by level.

    Args:
        maps: of each level.
        strides: of each level, in pixels of the network input.
        boxes: corner boxes in pixels of the network input.
        images: the image of each box.
        levels: the level of each box, as an index of ``maps``.
        output_size: cells per side.
        sampling_ratio: samples per side of a cell; 0 for as many as fit the region.
        aligned: shifts by half a cell, so that sample and cell centers agree; without, a region is at least one cell
            wide and high, as in the published detectors.
        backend: the one that runs; ``auto`` is ``embedding_bag`` on a CPU, else ``torchvision``, and that everywhere
            with a ``sampling_ratio`` of 0.

    Raises:
        ValueError: an unknown backend, sizes below their least, or ``embedding_bag`` without a ``sampling_ratio``.

    Source: He et al., Mask R-CNN, ICCV 2017, section 3. Checked against torchvision 0.29.2's ``roi_align``.
    """
    if backend not in get_args(RoIBackend):
        raise ValueError(f"backend is one of {list(get_args(RoIBackend))}, not {backend!r}")
    if output_size < 1 or sampling_ratio < 0:
        raise ValueError(f"output_size is at least 1 and sampling_ratio 0, not {output_size} and {sampling_ratio}")
    if operators_for_onnx():
        traced = onnx_roi_align(list(maps), list(strides), boxes, images, levels, output_size, sampling_ratio, aligned)
        return cast(Tensor, traced)
    if backend == "auto":
        backend = "embedding_bag" if boxes.device.type == "cpu" and sampling_ratio else "torchvision"
    if backend == "embedding_bag" and not sampling_ratio:
        raise ValueError("the backend embedding_bag needs a sampling_ratio of at least 1; torchvision also has 0")
    form = _bags_of_rows if backend == "embedding_bag" else align_level_by_level
    return form(maps, strides, boxes.detach(), images, levels, Grid(output_size, sampling_ratio, aligned))


def align_level_by_level(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    grid: Grid,
) -> Tensor:
    # Where it is needed: importing it takes a second.
    from torchvision.ops import roi_align as torchvision_roi_align

    # In half precision the corners of a large image's boxes would move by whole pixels.
    dtype = torch.promote_types(maps[0].dtype, torch.float32)
    boxes = boxes.to(dtype)
    if not grid.sampling_ratio:
        # The operator would count samples of what has no size.
        low, high = boxes.nan_to_num(0, 0, 0).split(2, 1)
        boxes = torch.cat((low, torch.maximum(low, high)), 1)
    regions = torch.cat((images[:, None].to(dtype), boxes), 1)
    out = maps[0].new_zeros(boxes.shape[0], maps[0].shape[1], grid.output_size, grid.output_size, dtype=dtype)
    for index, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        (own,) = torch.where(levels == index)
        cells = torchvision_roi_align(x.to(dtype), regions[own], spatial_scale=1 / stride, **grid._asdict())
        out = out.index_copy(0, own, cells)
    return out.to(maps[0].dtype)


def _bags_of_rows(
    maps: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Tensor,
    images: Tensor,
    levels: Tensor,
    grid: Grid,
) -> Tensor:
    channels, dtype = maps[0].shape[1], torch.promote_types(maps[0].dtype, torch.float32)
    # Image by image, level after level: where a level begins does not depend on how many images there are.
    levels_of_image = [x.permute(0, 2, 3, 1).flatten(1, 2) for x in maps]  # b c h w -> b (h w) c
    table = torch.cat(levels_of_image, 1).to(dtype)
    length = table.shape[1]
    heights, widths, scales, starts = _of_level(maps, strides, levels, dtype)
    corners = boxes.to(dtype) * scales[:, None]
    x_cells, x_weights = _taps(corners[:, 0], corners[:, 2], widths, grid)
    y_cells, y_weights = _taps(corners[:, 1], corners[:, 3], heights, grid)
    first = starts + images.to(starts.dtype) * length
    lines = first[:, None, None] + y_cells * widths[:, None, None]  # r s taps
    rows = lines[:, :, None, :, None] + x_cells[:, None, :, None, :]  # r s s taps taps
    y_weights, x_weights = y_weights / grid.sampling_ratio, x_weights / grid.sampling_ratio
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
    taps = (2 * grid.sampling_ratio) ** 2
    bags = F.embedding_bag(
        rows.view(-1, taps), table.flatten(0, 1), mode="sum", per_sample_weights=weights.reshape(-1, taps)
    )
    return bags.view(boxes.shape[0], grid.output_size, grid.output_size, channels).permute(0, 3, 1, 2).to(maps[0].dtype)


def _of_level(
    maps: Sequence[Tensor], strides: Sequence[int], levels: Tensor, dtype: torch.dtype
) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, " r"], Int[Tensor, " r"]]:
    """Look up height, width, scale and first row, within its image's table, of each region's level."""
    heights, widths = [x.shape[-2] for x in maps], [x.shape[-1] for x in maps]
    starts = [0]
    for x in maps[:-1]:
        starts.append(starts[-1] + x.shape[-2] * x.shape[-1])
    # 32 bits hold every row, and sort and load twice as fast.
    counts = torch.tensor([heights, widths, starts], device=levels.device, dtype=torch.int32)[:, levels]
    scales = torch.tensor([1 / stride for stride in strides], device=levels.device, dtype=dtype)[levels]
    return counts[0], counts[1], scales, counts[2]


def _taps(
    low: Float[Tensor, " r"],
    high: Float[Tensor, " r"],
    size: Int[Tensor, " r"],
    grid: Grid,
) -> tuple[Int[Tensor, "r s t"], Float[Tensor, "r s t"]]:
    """Find, along one axis and for each cell of the output, the cells of the map that are read, and their weights."""
    output_size, sampling_ratio = grid.output_size, grid.sampling_ratio
    if grid.aligned:
        low, high = low - 0.5, high - 0.5
    extent = high - low if grid.aligned else (high - low).clamp(min=1)
    steps = (torch.arange(output_size * sampling_ratio, device=low.device, dtype=low.dtype) + 0.5) / (
        output_size * sampling_ratio
    )
    positions = low[:, None] + steps * extent[:, None]  # r (s ratio)
    limits = size[:, None].to(positions.dtype)
    # Of boxes that are not numbers nothing is inside, and none of their positions is read.
    inside = (positions >= -1) & (positions <= limits)
    positions = positions.where(inside, 0).clamp(min=0).minimum(limits - 1)
    cells = positions.to(torch.int32)
    beyond = positions - cells
    neighbors = (cells + 1).minimum(size[:, None] - 1)
    both = torch.stack((cells, neighbors), -1).view(low.shape[0], output_size, 2 * sampling_ratio)
    weights = torch.stack((1 - beyond, beyond), -1) * inside[..., None]
    return both, weights.view(low.shape[0], output_size, 2 * sampling_ratio)
