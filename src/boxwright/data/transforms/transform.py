"""Contract of transforms, and the training sample that they change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from boxwright.data.crop import Crop
from boxwright.data.masks import render_mask_arrays, render_record_masks
from boxwright.data.records import Record
from boxwright_runtime.input_format import ResizeRule, Window

SMALLEST_SIDE = 1.0
"""Boxes with a side below this, in pixels of the network input, are dropped."""


@runtime_checkable
class ObjectMasks(Protocol):
    """Masks of the objects of a sample, which are made into pixels when they are needed."""

    def select(self, indices: Sequence[int]) -> ObjectMasks:
        """Return the masks of some of the objects."""

    def render(self, crop: Crop) -> Bool[Tensor, "n height width"]:
        """Return the masks in pixels of the network input that shows a crop of the image."""


@dataclass(frozen=True, eq=False)
class RecordMasks:
    """Masks as a record has them: polygons and run lengths, which crops do not blur.

    Args:
        record: the image and its objects.
        indices: of the objects in the record.
    """

    record: Record
    indices: tuple[int, ...]

    def select(self, indices: Sequence[int]) -> RecordMasks:
        """Return the masks of some of the objects."""
        return replace(self, indices=tuple(self.indices[index] for index in indices))

    def render(self, crop: Crop) -> Bool[Tensor, "n height width"]:
        """Return the masks in pixels of the network input that shows a crop of the image."""
        return render_record_masks(self.record, self.indices, crop)


@dataclass(frozen=True, eq=False)
class PixelMasks:
    """Masks in pixels of the sample's image.

    Args:
        pixels: True on the object.
    """

    pixels: Bool[np.ndarray, "n h w"]

    def select(self, indices: Sequence[int]) -> PixelMasks:
        """Return the masks of some of the objects."""
        return PixelMasks(self.pixels[list(indices)])

    def render(self, crop: Crop) -> Bool[Tensor, "n height width"]:
        """Return the masks in pixels of the network input that shows a crop of the image."""
        return render_mask_arrays(self.pixels, crop)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSample:
    """An image and its objects, on the way to the network input. Arrays must not be written to.

    Args:
        image: RGB, upright: bytes, or floats in [0, 255] of a network input that was resized without rounding.
        boxes: corners in pixels of the image.
        labels: class of each object.
        masks: of each object; None where the detector needs none.
    """

    image: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]
    boxes: Float32[np.ndarray, "n 4"]
    labels: Int64[np.ndarray, " n"]
    masks: ObjectMasks | None = None

    def select(self, indices: Sequence[int]) -> TrainingSample:
        """Return the sample with some of its objects, in this order; boxes, labels and masks stay together."""
        rows = list(indices)
        masks = None if self.masks is None else self.masks.select(rows)
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], masks=masks)

    def mask_pixels(self) -> Bool[np.ndarray, "n h w"] | None:
        """Return the masks in pixels of the image; None where there are none."""
        if self.masks is None:
            return None
        if isinstance(self.masks, PixelMasks):
            return self.masks.pixels
        height, width = self.image.shape[:2]
        masks: Bool[np.ndarray, "n h w"] = self.masks.render(Crop(Window.whole(height, width), (height, width))).numpy()
        return masks


@dataclass(frozen=True, eq=False, kw_only=True)
class TransformContext:
    """Everything besides the sample that a transform may depend on.

    Args:
        rng: the only source of chance: a function of the seed, the epoch and the image.
        resize_rule: size of the network input in this step.
        is_strong: strong augmentation is on; False in the last stage of training, and before ``mixing_epochs``.
        draw_sample: returns another sample of the data set, at random, before any transform; for transforms of
            several images. The recipe's own augmentation gets it as ``image_transforms`` have changed it.
        is_mixed: mosaic and mixup are on, where the recipe has them.
    """

    rng: np.random.Generator
    resize_rule: ResizeRule
    is_strong: bool
    draw_sample: Callable[[], TrainingSample]
    is_mixed: bool = False


@runtime_checkable
class Transform(Protocol):
    """A random change of a training sample."""

    def __call__(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        """Return the changed sample; the old one stays as it was.

        Objects that are no longer in the image are dropped with ``TrainingSample.select``.
        """


def apply_transform(transform: Transform, sample: TrainingSample, context: TransformContext) -> TrainingSample:
    """Return the changed sample.

    Raises:
        ValueError: the transform, which may be a user's, returns something else.
    """
    changed: object = transform(sample, context)
    if not isinstance(changed, TrainingSample):
        raise ValueError(f"{transform!r} returned {type(changed).__name__}: it must return the changed TrainingSample")
    return changed


def keep_visible(sample: TrainingSample, smallest_side: float) -> TrainingSample:
    """Clip boxes to the image, and drop objects whose box then has a side below a limit, in pixels."""
    height, width = sample.image.shape[:2]
    boxes = sample.boxes.clip(0, np.array([width, height] * 2, dtype=np.float32))
    sides = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf)
    return replace(sample, boxes=boxes).select(np.flatnonzero(sides >= smallest_side).tolist())


def to_pixels(
    image: UInt8[Tensor, "3 h w"] | Float32[Tensor, "3 h w"],
) -> UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"]:
    """Return an image (3, h, w) as an array (h, w, 3) of the same memory."""
    pixels: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"] = image.permute(1, 2, 0).numpy()
    return pixels


def to_image(
    pixels: UInt8[np.ndarray, "h w 3"] | Float32[np.ndarray, "h w 3"],
) -> UInt8[Tensor, "3 h w"] | Float32[Tensor, "3 h w"]:
    """Return an array (h, w, 3) as an image (3, h, w) of the same memory."""
    return torch.from_numpy(pixels).permute(2, 0, 1)
