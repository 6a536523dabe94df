"""Masks and their run lengths, in NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from boxwright_runtime.structures import RLE

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

_MOST_LETTERS = 7
"""Letters of a compressed number at most: five bits each, for lengths below 2^34."""


def encode_rle(mask: Bool[np.ndarray, "h w"]) -> RLE:
    """Encode a mask as COCO's compressed run lengths."""
    return encode_part(mask, (0, 0), mask.shape)


def encode_part(part: Bool[np.ndarray, "h w"], corner: tuple[int, int], size: tuple[int, ...]) -> RLE:
    """Encode the mask of an image that is False outside of a part of it; only that part is looked at.

    Args:
        part: inside the image.
        corner: (top, left) of the part in the image.
        size: (height, width) of the image.
    """
    (top, left), (height, width) = corner, size
    # Column by column. Where the first and the last pixel of neighboring columns are both in the mask, a run ends where
    # the next one begins, and both are left out.
    columns = np.zeros((part.shape[1], part.shape[0] + 1), dtype=np.bool_)
    columns[:, :-1] = part.T
    pixels = columns.ravel()
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    if pixels[:1].any():
        changes = np.concatenate(([0], changes))
    column, row = np.divmod(changes, part.shape[0] + 1)
    changes = (column + left) * height + (row + top)
    if part.shape[0] == height:
        twice = np.flatnonzero(changes[1:] == changes[:-1])
        changes = np.delete(changes, np.concatenate((twice, twice + 1)))
    runs = np.diff(changes, prepend=0, append=height * width)
    # What is True to the very end has no run of zeros behind it.
    runs = runs[:-1] if len(runs) > 1 and not runs[-1] else runs
    return {"size": [int(height), int(width)], "counts": _compress(runs)}


def decode_rle(rle: RLE) -> Bool[np.ndarray, "h w"]:
    """Decode the mask of run lengths, whose counts may be compressed (bytes or text) or a list of numbers."""
    (height, width), counts = rle["size"], rle["counts"]
    runs = counts if isinstance(counts, list) else run_lengths(counts)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def run_lengths(counts: str | bytes) -> list[int]:
    """Decompress the lengths of runs, zeros first, column by column, without a check of their sum.

    Raises:
        ValueError: the text is not compressed counts.
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
        # From the fourth on, the differences from the run before last are written.
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("they end within a number")
    return runs


def to_json(rle: RLE) -> dict[str, Any]:
    """Convert run lengths to their form in COCO's files: compressed counts as text."""
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _compress(runs: Int64[np.ndarray, " n"]) -> bytes:
    """Write run lengths as text: five bits a letter, the lowest first, 32 added where more follow.

    **Source**: rleToString of pycocotools.
    """
    values = runs.copy()
    values[3:] -= runs[1:-2]
    shifts = 5 * np.arange(_MOST_LETTERS)
    # The number is complete once all that is left equals the sign bit of the letter.
    rests = values[:, None] >> (shifts + 4)
    more = (rests != 0) & (rests != -1)
    letters = ((values[:, None] >> shifts) & 31) + 32 * more + 48
    is_used = np.ones(letters.shape, dtype=np.bool_)
    is_used[:, 1:] = more[:, :-1]
    text: npt.NDArray[np.uint8] = letters[is_used].astype(np.uint8)
    return text.tobytes()
