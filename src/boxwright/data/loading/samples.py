"""Single images on their canvases, with their objects: augmented for training, as they are for evaluation."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from boxwright.data.input_format import InputFormat
from boxwright.data.loading.sampler import SampleKey, augmentation_rng
from boxwright.data.masks import render_record_masks
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import Augmentation, View
from boxwright.structures import ImageSize


class Sample(NamedTuple):
    """One image on its canvas; ``boxes`` are corners in pixels of the canvas, ``masks`` are wanted by some only."""

    image: UInt8[Tensor, "3 height width"]
    labels: Int64[Tensor, " n"]
    boxes: Float32[Tensor, "n 4"]
    size: ImageSize
    image_id: int
    masks: Bool[Tensor, "n height width"] | None = None


class ImageCache:
    """Decoded images, kept until a budget is spent; each process has its own.

    Args:
        limit_bytes: the budget; 0 keeps nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._images: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    def read(self, index: int, record: Record) -> UInt8[np.ndarray, "h w 3"]:
        """The image of a record; must not be written to."""
        image = self._images.get(index)
        if image is None:
            image = record.read()
            if self.used_bytes + image.nbytes <= self.limit_bytes:
                self._images[index] = image
                self.used_bytes += image.nbytes
        return image

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is sent this cache starts an empty one."""
        return {"limit_bytes": self.limit_bytes, "used_bytes": 0, "_images": {}}


class TrainSet(Dataset[Sample]):
    """Augmented samples; each depends on the seed and its key alone.

    Crowd regions are no objects to train on and are left out. Images without objects are samples like all
    others.

    Args:
        data: the images.
        augmentation: what may happen to them.
        input_format: how canvases follow from images and the image size of a key.
        seed: of the run.
        cache_bytes: memory for decoded images, in bytes, in each process.
        with_masks: make the objects' masks too.
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
    ) -> None:
        self.data = data
        self.with_masks = with_masks
        self.augmentation = augmentation
        self.input_format = input_format
        self.seed = seed
        self._cache = ImageCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        record = self.data.records[key.record]
        pixels = self._cache.read(key.record, record)
        single = np.flatnonzero(~record.crowd)
        resize_rule, rng = self.input_format.resize_rule(key.image_size), augmentation_rng(self.seed, key)
        image, boxes, kept, view = self.augmentation(pixels, record.boxes()[single], resize_rule, rng, light=key.light)
        chosen = single[kept]
        sample = _sample(record, image, record.labels[chosen], boxes)
        return sample._replace(masks=render_record_masks(record, chosen.tolist(), view)) if self.with_masks else sample


class EvalSet(Dataset[Sample]):
    """What canvases show of images without chance; by their index in the data set.

    Args:
        data: the images.
        input_format: the canvases.
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
        view = View(self.input_format.window(*shape), self.input_format.canvas(*shape))
        return _sample(record, view.render(record.read()), record.labels[single], view.boxes(record.boxes()[single]))


def _sample(
    record: Record,
    image: UInt8[Tensor, "3 height width"],
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
