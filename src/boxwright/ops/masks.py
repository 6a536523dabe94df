"""Masks and their run lengths; beside the metrics, the one file that knows the library that encodes them (hotcoco)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hotcoco import mask as packing
from jaxtyping import Bool
from torch import Tensor

from boxwright.structures import RLE


def encode_mask(mask: Bool[Tensor, "h w"]) -> RLE:
    """Encode a mask as COCO's compressed run lengths."""
    encoded: RLE = packing.encode(mask.cpu().numpy())
    return encoded


def decode_mask(rle: RLE) -> Bool[Tensor, "h w"]:
    """Decode the mask of run lengths, whose counts may be compressed (bytes or text) or a list of numbers."""
    return torch.from_numpy(packing.decode(rle)).view(torch.bool)


def mask_box(rle: RLE) -> tuple[int, int, int, int]:
    """Compute the corners (x1, y1, x2, y2) of the smallest box around a mask's pixels; all 0 where it has none."""
    left, top, width, height = map(int, packing.toBbox(rle).tolist())
    return left, top, left + width, top + height


def mask_area(rle: RLE) -> int:
    """Count the pixels of a mask."""
    return int(packing.area(rle))


def rasterize(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """Rasterize an object of one or more polygons: nearly the pixels whose center lies in one of them.

    Args:
        polygons: each x, y, x, y ... of three points or more, in pixels. The outside of the image is cut off.
        height: of the image.
        width: likewise.

    Source: rleFrPoly of pycocotools, which hotcoco computes likewise; masks are rasterized so in evaluation as well.
    """
    parts: list[RLE] = packing.frPyObjects(list(polygons), height, width)
    whole: RLE = parts[0] if len(parts) == 1 else packing.merge(parts)
    return whole
