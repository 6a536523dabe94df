"""Network inputs of single images with their objects: augmented for training, without chance for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from boxwright.data.crop import Crop
from boxwright.data.images import to_bytes
from boxwright.data.loading.sampler import SampleKey, augmentation_rng, draws_seed
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import (
    SMALLEST_SIDE,
    RecordMasks,
    TrainingSample,
    Transform,
    TransformContext,
    apply_transform,
    keep_visible,
    to_image,
    to_pixels,
)
from boxwright.structures import ImageSize
from boxwright_runtime.input_format import InputFormat


class Sample(NamedTuple):
    """One network input and its targets.

    Args:
        image: RGB, not yet normalized: bytes, or floats in [0, 255] where the input format has ``resize_floats``.
        labels: class of each object.
        boxes: corners in pixels of the input.
        size: of the original image, and of the input.
        image_id: the data set's own id.
        masks: of each object, in pixels of the input; None for detectors of boxes alone.
        padded_size: (height, width) that the padded input has at least; that of the image where None.
        seed: of the random choices that a detector makes for it in training, see ``Targets``.
    """

    image: UInt8[Tensor, "3 height width"] | Float32[Tensor, "3 height width"]
    labels: Int64[Tensor, " n"]
    boxes: Float32[Tensor, "n 4"]
    size: ImageSize
    image_id: int
    masks: Bool[Tensor, "n height width"] | None = None
    padded_size: tuple[int, int] | None = None
    seed: int | None = None


class ImageCache:
    """Decoded images, kept until a budget is spent; each process has its own.

    Args:
        limit_bytes: the budget; 0 for no cache.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._images: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    def read(self, index: int, record: Record) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image of a record; it must not be written to."""
        image = self._images.get(index)
        if image is None:
            image = record.read()
            if self.used_bytes + image.nbytes <= self.limit_bytes:
                self._images[index] = image
                self.used_bytes += image.nbytes
        return image

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty cache of the same budget, for a worker process."""
        return {"limit_bytes": self.limit_bytes, "used_bytes": 0, "_images": {}}


class TrainSet(Dataset[Sample]):
    """Augmented samples; each depends on the seed and its key alone.

    Crowd regions are no objects to train on and are left out. Images without objects are samples like all
    others.

    Args:
        data: the images.
        augmentation: random changes, and the way to the network input.
        input_format: size of the network input by the image and the image size of a key.
        seed: of the run.
        cache_bytes: memory for decoded images, in bytes, in each process.
        with_masks: make the objects' masks too.
        image_transforms: own transforms of whole images, in this order, before ``augmentation``.
        input_transforms: own transforms of network inputs, in this order, after it; they keep the size.
    """

    def __init__(
        self,
        data: DetectionData,
        *,
        augmentation: Augmentation,
        input_format: InputFormat,
        seed: int,
        cache_bytes: int = 0,
        with_masks: bool = False,
        image_transforms: Sequence[Transform] = (),
        input_transforms: Sequence[Transform] = (),
    ) -> None:
        self.data = data
        self.with_masks = with_masks
        self.augmentation = augmentation
        self.input_format = input_format
        self.seed = seed
        self.image_transforms = tuple(image_transforms)
        self.input_transforms = tuple(input_transforms)
        self._cache = ImageCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        rng = augmentation_rng(self.seed, key)
        context = TransformContext(
            rng=rng,
            resize_rule=self.input_format.resize_rule(key.image_size),
            is_strong=key.is_strong,
            draw_sample=lambda: self._read(self.data.draw_image(rng)),
            is_mixed=key.is_mixed,
        )
        several = replace(context, draw_sample=lambda: self._change(context.draw_sample(), context))
        sample = self.augmentation(self._change(self._read(key.record), context), several)
        size = sample.image.shape
        if self.input_transforms:  # they take bytes
            sample = replace(sample, image=to_pixels(to_bytes(to_image(sample.image))))
        for transform in self.input_transforms:
            sample = keep_visible(apply_transform(transform, sample, context), SMALLEST_SIDE)
            if sample.image.shape != size:
                raise ValueError(
                    f"{transform} changed the network input from {size[1]} x {size[0]} pixels to "
                    f"{sample.image.shape[1]} x {sample.image.shape[0]}: use it among image_transforms, before the "
                    "image is resized"
                )
        finished = self._finish(self.data.records[key.record], sample)
        padded_size = context.resize_rule.padded_size(*size[:2])
        return finished._replace(padded_size=padded_size, seed=draws_seed(self.seed, key))

    def _change(self, sample: TrainingSample, context: TransformContext) -> TrainingSample:
        for transform in self.image_transforms:
            sample = apply_transform(transform, sample, context)
        return sample

    def _read(self, index: int) -> TrainingSample:
        record = self.data.records[index]
        single = np.flatnonzero(~record.crowd)
        return TrainingSample(
            image=self._cache.read(index, record),
            boxes=record.boxes()[single],
            labels=record.labels[single],
            masks=RecordMasks(record, tuple(single.tolist())) if self.with_masks else None,
        )

    def _finish(self, record: Record, sample: TrainingSample) -> Sample:
        masks = sample.mask_pixels()
        finished = _sample(record, to_image(sample.image), sample.labels, sample.boxes)
        return finished if masks is None else finished._replace(masks=torch.from_numpy(masks))


class EvalSet(Dataset[Sample]):
    """Network inputs of images without chance, by their index in the data set.

    Args:
        data: the images.
        input_format: size of the inputs, and the part of an image that they show.
    """

    def __init__(self, data: DetectionData, *, input_format: InputFormat) -> None:
        self.data = data
        self.input_format = input_format

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.data.records[index]
        single = ~record.crowd
        shape = record.height, record.width
        crop = Crop(self.input_format.window(*shape), self.input_format.input_size(*shape))
        image = crop.render(record.read(), self.input_format.resampling)
        sample = _sample(record, image, record.labels[single], crop.boxes(record.boxes()[single]))
        return sample._replace(padded_size=self.input_format.padded_size(*crop.input_size))


def _sample(
    record: Record,
    image: UInt8[Tensor, "3 height width"] | Float32[Tensor, "3 height width"],
    labels: Int64[np.ndarray, " n"],
    boxes: Float32[np.ndarray, "n 4"],
) -> Sample:
    _, height, width = image.shape
    return Sample(
        image=image,
        labels=torch.from_numpy(labels),
        boxes=torch.from_numpy(boxes),
        size=ImageSize(record.height, record.width, height, width),
        image_id=record.image_id,
    )
