"""Pasting: from masks of a few cells to masks of images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from boxwright_runtime.masks import encode_part
from boxwright_runtime.structures import RLE, MaskRegion

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

_ALMOST_ONE = np.float32(1 - 2**-24)
"""The largest number below 1."""


def paste_masks(
    probabilities: Float32[np.ndarray, "n s t"],
    boxes: Float32[np.ndarray, "n 4"],
    size: tuple[int, int],
    *,
    region: MaskRegion = "box",
    threshold: float = 0.5,
) -> tuple[RLE, ...]:
    """Paste masks over their boxes, as masks of an image.

    Args:
        probabilities: of the cells that a box consists of.
        boxes: corner boxes in pixels of the image, which they may leave.
        size: (height, width) of the image.
        region: ``box`` where each box is that of its object, and the probability falls to 0 around it; ``image`` where
            it is the network input, and what lies beyond is as its outermost cell.
        threshold: pixels with a higher probability belong to the object.

    Source: of ``box``, He et al., Mask R-CNN, ICCV 2017, section 3.1 (inference). Checked against torchvision 0.29.2's
    paste_masks_in_image: a rim of zeros around the mask, boxes widened by as much and cut to whole pixels. Of
    ``image``, ``PostProcess`` of roboflow/rf-detr 35ac6ab, which upsamples logits: theirs are those of
    ``probabilities`` up to the rounding of float32, in which probabilities end at a logit of 16.6.
    """
    if region == "image":
        return tuple(
            _paste_image(mask, box, size, threshold)
            for mask, box in zip(probabilities, boxes.astype(np.float32, copy=False), strict=True)
        )
    cells = probabilities.shape[-1]
    padded = np.pad(probabilities.astype(np.float32, copy=False), ((0, 0), (1, 1), (1, 1)))
    x1, y1, x2, y2 = boxes.astype(np.float32, copy=False).T
    widened = np.float32((cells + 2) / cells)
    half_width, half_height = (np.float32(0.5) * ((high - low) * widened) for low, high in ((x1, x2), (y1, y2)))
    center_x, center_y = (x1 + x2) / np.float32(2), (y1 + y2) / np.float32(2)
    corners = np.stack(
        (center_x - half_width, center_y - half_height, center_x + half_width, center_y + half_height), axis=1
    )
    return tuple(
        _paste(mask, corner, size, threshold)
        for mask, corner in zip(padded, corners.astype(np.int64).tolist(), strict=True)
    )


class _Cells(NamedTuple):
    """The two cells that each pixel of a side lies between, and their weights."""

    first: Int64[np.ndarray, " n"]
    second: Int64[np.ndarray, " n"]
    first_weight: Float32[np.ndarray, " n"]
    second_weight: Float32[np.ndarray, " n"]


def _paste(mask: npt.NDArray[np.float32], corners: list[int], size: tuple[int, int], threshold: float) -> RLE:
    """Encode one mask; only pixels of the image are calculated."""
    (height, width), (x1, y1, x2, y2) = size, corners
    rows, columns = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
    top, left = min(max(y1, 0), height), min(max(x1, 0), width)
    bottom, right = max(top, min(y1 + rows, height)), max(left, min(x1 + columns, width))
    across = _find_cells(len(mask), columns, np.arange(left - x1, right - x1))
    down = _find_cells(len(mask), rows, np.arange(top - y1, bottom - y1))
    large = _upsample(mask, down, across)
    return encode_part((large > np.float32(threshold)).T, (top, left), size)


def _paste_image(
    mask: npt.NDArray[np.float32], box: npt.NDArray[np.float32], size: tuple[int, int], threshold: float
) -> RLE:
    """Encode one mask of the network input; only pixels next to a cell above the threshold are calculated."""
    above = mask > np.float32(threshold)
    if not above.any():
        return encode_part(np.zeros((0, 0), dtype=np.bool_), (0, 0), size)
    (top, rows, down), (left, columns, across) = (
        _find_part(np.asarray(above.any(1 - axis)), box[1 - axis], box[3 - axis], size[axis]) for axis in (0, 1)
    )
    part = mask[rows, columns].clip(np.finfo(np.float32).tiny, _ALMOST_ONE)
    large = _upsample(np.log(part) - np.log1p(-part), down, across)
    return encode_part((large > np.float32(math.log(threshold / (1 - threshold)))).T, (top, left), size)


def _find_part(
    above: Bool[np.ndarray, " s"], low: np.float32, high: np.float32, pixels: int
) -> tuple[int, slice, _Cells]:
    """Find the pixels of a side of the image that lie next to a cell above the threshold.

    Returns:
        the first one, the cells that all of them lie between, and the indices among these.
    """
    cells = _find_cells(len(above), float(high - low), np.arange(pixels) - low)
    (near,) = np.nonzero(above[cells.first] | above[cells.second])
    start, stop = (int(near[0]), int(near[-1]) + 1) if len(near) else (0, 0)
    first, second, *weights = (one[start:stop] for one in cells)
    begin, end = (int(first[0]), int(second[-1]) + 1) if len(near) else (0, 1)
    return start, slice(begin, end), _Cells(first - begin, second - begin, *weights)


def _upsample(mask: npt.NDArray[np.float32], down: _Cells, across: _Cells) -> npt.NDArray[np.float32]:
    """Calculate pixels between cells; transposed, because run lengths go column by column."""
    cells = np.ascontiguousarray(mask.T)
    widened = cells[across.first] * across.first_weight[:, None] + cells[across.second] * across.second_weight[:, None]
    large: npt.NDArray[np.float32] = widened.take(down.first, axis=1) * down.first_weight
    large += widened.take(down.second, axis=1) * down.second_weight
    return large


def _find_cells(cells: int, pixels: float, positions: npt.NDArray[Any]) -> _Cells:
    """Find the cells for pixels at some positions along a side that has ``pixels`` of them, bilinear."""
    scale = np.float32(cells) / np.float32(pixels)
    position = (positions.astype(np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), cells - 1)
    weight = np.clip(position - first.astype(np.float32), np.float32(0), np.float32(1))
    return _Cells(first, np.minimum(first + 1, cells - 1), np.float32(1) - weight, weight)
