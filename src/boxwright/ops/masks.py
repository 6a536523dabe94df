"""Masks and their run lengths. Beside the metrics, the one file that knows which library packs them (hotcoco)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from hotcoco import mask as packing
from jaxtyping import Bool
from torch import Tensor

from boxwright.structures import RLE


def encode_mask(mask: Bool[Tensor, "h w"]) -> RLE:
    """A mask as COCO's compressed run lengths."""
    encoded: RLE = packing.encode(mask.cpu().numpy())
    return encoded


def decode_mask(rle: RLE) -> Bool[Tensor, "h w"]:
    """The mask of run lengths, whose counts may be compressed (bytes or text) or a list of numbers."""
    return torch.from_numpy(packing.decode(rle)).view(torch.bool)


def mask_box(rle: RLE) -> tuple[int, int, int, int]:
    """The corners (x1, y1, x2, y2) of the smallest box around a mask's pixels; all 0 where it has none."""
    left, top, width, height = map(int, packing.toBbox(rle).tolist())
    return left, top, left + width, top + height


def rasterize(polygons: Sequence[Sequence[float]], height: int, width: int) -> RLE:
    """The pixels of an object of one or more polygons: those whose center lies in one of them, nearly.

    Args:
        polygons: each x, y, x, y ... of three points or more, in pixels. What lies outside the canvas is cut off.
        height: of the canvas.
        width: likewise.

    **Source**: rleFrPoly of pycocotools, which hotcoco computes likewise; what is evaluated is rasterized so as well.
    """
    parts: list[RLE] = packing.frPyObjects(list(polygons), height, width)
    whole: RLE = parts[0] if len(parts) == 1 else packing.merge(parts)
    return whole


def run_lengths(counts: str | bytes) -> list[int]:
    """Lengths of the runs in compressed counts, zeros first, column by column; whatever they say, also nonsense.

    Raises:
        ValueError: it is no compressed text.
    """
    codes = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for code in codes:
        digit = code - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{chr(code)!r} is no letter of compressed counts")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        # From the fourth on, what is written is the difference from the run before last.
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("they end within a number")
    return runs


def to_json(rle: RLE) -> dict[str, Any]:
    """Run lengths as they stand in COCO's files: compressed counts as text."""
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}
