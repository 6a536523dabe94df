"""What the readers return: images with their annotations, whatever the file format was."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from boxwright.structures import Category


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its annotations.

    Args:
        image_id: the file's own id of the image.
        path: where the image is.
        height: of the image after its EXIF rotation, in pixels.
        width: likewise.
        labels: class of each object, 0..C-1 into ``DetectionData.categories``.
        bbox_xywh: left, top, width, height of each object, in pixels of the image, exactly as in the file.
        area: area of each object in square pixels: the file's own, or the box's where the file has none.
        crowd: True where the annotation marks a group rather than one object.
        annotation_ids: the file's own ids of the annotations.
        segmentations: per object COCO polygons, an RLE, a ``MaskFile`` or None; an empty tuple where the file has
            none at all.
    """

    image_id: int
    path: Path
    height: int
    width: int
    labels: Int64[np.ndarray, " n"]
    bbox_xywh: Float64[np.ndarray, "n 4"]
    area: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    annotation_ids: tuple[int, ...]
    segmentations: tuple[Any, ...] = ()

    def boxes(self) -> Float32[np.ndarray, "n 4"]:
        """Corner boxes, clipped to the image, in its pixels."""
        xyxy = self.bbox_xywh.copy()
        xyxy[:, 2:] += xyxy[:, :2]
        return xyxy.clip(0, [self.width, self.height, self.width, self.height]).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A data set, or one split of it, checked and ready for training or evaluation.

    Args:
        records: the images; those without objects included.
        categories: label ``i`` is ``categories[i]``.
        source: the annotation file, for messages.
        notes: what was dropped or repaired while reading, one line each, for the user.
    """

    records: tuple[Record, ...]
    categories: tuple[Category, ...]
    source: Path
    notes: tuple[str, ...] = field(default=())
