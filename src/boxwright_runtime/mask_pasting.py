"""Pasting: from small masks of boxes to masks of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from boxwright_runtime.masks import encode_part
from boxwright_runtime.structures import RLE

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64


def paste_masks(
    probabilities: Float32[np.ndarray, "n s s"],
    boxes: Float32[np.ndarray, "n 4"],
    size: tuple[int, int],
    *,
    threshold: float = 0.5,
) -> tuple[RLE, ...]:
    """Paste masks over their boxes, as masks of an image.

    Args:
        probabilities: of the cells that a box consists of.
        boxes: corner boxes in pixels of the image, which they may leave.
        size: (height, width) of the image.
        threshold: pixels with a higher probability belong to the object.

    Source: He et al., Mask R-CNN, ICCV 2017, section 3.1 (inference). Checked against torchvision 0.29.2's
    paste_masks_in_image: a rim of zeros around the mask, boxes widened by as much and cut to whole pixels.
    """
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
    across = _find_cells(len(mask), columns, left - x1, right - x1)
    down = _find_cells(len(mask), rows, top - y1, bottom - y1)
    # Transposed, because run lengths go column by column.
    cells = np.ascontiguousarray(mask.T)
    widened = cells[across.first] * across.first_weight[:, None] + cells[across.second] * across.second_weight[:, None]
    large = widened.take(down.first, axis=1) * down.first_weight
    large += widened.take(down.second, axis=1) * down.second_weight
    return encode_part((large > np.float32(threshold)).T, (top, left), size)


def _find_cells(cells: int, pixels: int, start: int, stop: int) -> _Cells:
    """Find the cells for the pixels from ``start`` to ``stop`` of a side that has so many, bilinear."""
    scale = np.float32(cells) / np.float32(pixels)
    position = (np.arange(start, stop, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    first = np.minimum(position.astype(np.int64), cells - 1)
    weight = np.clip(position - first.astype(np.float32), np.float32(0), np.float32(1))
    return _Cells(first, np.minimum(first + 1, cells - 1), np.float32(1) - weight, weight)
