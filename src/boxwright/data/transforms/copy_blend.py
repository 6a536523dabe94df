"""CopyBlend: objects of one image, half transparent in another."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from boxwright.data.transforms.mixup import blend
from boxwright.data.transforms.transform import PixelMasks, TrainingSample

MOST_OBJECTS = 3
SMALLEST_AREA = 100.0
"""Objects of a smaller box, in square pixels of the network input, are not copied."""

COPIED_MARGIN = (0.1, 0.25)
"""Least and largest margin around an object that is copied with it, as a fraction of its sides."""


class Paste(NamedTuple):
    """An object to copy.

    Args:
        row: index of the object in its image.
        source: (left, top, right, bottom) of its box there, in whole pixels.
        target: (left, top) of the box in the other image.
        margin: pixels to the left, top, right and bottom that are copied with it.
    """

    row: int
    source: tuple[int, int, int, int]
    target: tuple[int, int]
    margin: tuple[int, int, int, int] = (0, 0, 0, 0)


def draw_pastes(sample: TrainingSample, other: TrainingSample, rng: np.random.Generator) -> list[Paste]:
    """Draw up to three objects of another network input, and a position for each anywhere in the sample."""
    sides = other.boxes[:, 2:] - other.boxes[:, :2]
    large = np.flatnonzero(sides.prod(1) >= SMALLEST_AREA)
    chosen: Int64[np.ndarray, " k"] = rng.permutation(large)[:MOST_OBJECTS]
    size, other_size = (np.array(one.image.shape[1::-1]) for one in (sample, other))
    pastes = []
    for index in chosen.tolist():
        low = other.boxes[index, :2].astype(int).clip(0, other_size)
        high = np.minimum(other.boxes[index, 2:].astype(int).clip(0, other_size), low + size)
        if (high <= low).any():
            continue
        target = rng.integers(size - (high - low) + 1)
        margin = ((high - low) * rng.uniform(*COPIED_MARGIN)).astype(int)
        before = np.minimum(margin, np.minimum(low, target))
        after = np.minimum(margin, np.minimum(other_size - high, size - target - (high - low)))
        pastes.append(
            Paste(index, (*low.tolist(), *high.tolist()), (*target.tolist(),), (*before.tolist(), *after.tolist()))
        )
    return pastes


def copy_blend(sample: TrainingSample, other: TrainingSample, pastes: list[Paste], opacity: float) -> TrainingSample:
    """Return a network input with objects of another one, one after the other, each with a margin around it.

    A copied object's box is that of its copied pixels without the margin, and its mask moves with it; those of the
    sample's own objects, which shine through, stay.

    **Source**: DEIMv2 (Huang et al., 2025), Intellindust-AI-Lab/DEIMv2 0fff8d4 (``apply_mixup``, CopyBlend, "blend"):
    the same pixels, but rounded to bytes, boxes and labels of given objects and positions. Differs in the objects:
    there they are drawn from all of a process's batch, the image itself included, and have at least 100 square pixels
    in their original image; here from one other image of the data set, so that a sample does not depend on the images
    beside it, and by the area of their box in the network input.

    Args:
        sample: a network input.
        other: another one, of any size.
        pastes: of ``draw_pastes``.
        opacity: weight of the sample's own pixels; 1 less that is the weight of the copied ones.
    """
    image = sample.image.copy()
    boxes = np.empty((len(pastes), 4), np.float32)
    masks = np.zeros((len(pastes), *image.shape[:2]), bool)
    source_masks = other.mask_pixels()
    for row, (index, (x1, y1, x2, y2), (left, top), (before_x, before_y, after_x, after_y)) in enumerate(pastes):
        right, bottom = left + x2 - x1, top + y2 - y1
        boxes[row] = left, top, right, bottom
        area = slice(top - before_y, bottom + after_y), slice(left - before_x, right + after_x)
        copied = other.image[y1 - before_y : y2 + after_y, x1 - before_x : x2 + after_x]
        image[area] = blend(image[area], copied, opacity)
        if source_masks is not None:
            masks[row, top:bottom, left:right] = source_masks[index, y1:y2, x1:x2]
    return replace(
        sample,
        image=image,
        boxes=np.concatenate([sample.boxes, boxes]),
        labels=np.concatenate([sample.labels, other.labels[[paste.row for paste in pastes]]]),
        masks=_join(sample.mask_pixels(), masks),
    )


def _join(own: Bool[np.ndarray, "n h w"] | None, copied: Bool[np.ndarray, "k h w"]) -> PixelMasks | None:
    return None if own is None else PixelMasks(np.concatenate([own, copied]))
