"""Images with their annotations, checked and joined, whatever the file format was."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from boxwright.data.annotations import ImageSource
from boxwright.data.findings import Finding
from boxwright.data.image_inspection import ImageFacts
from boxwright.structures import Category
from boxwright_runtime.images import read_image


@dataclass(frozen=True, eq=False)
class Record:
    """One image and its annotations.

    Args:
        image_id: the file's own id of the image.
        path: the image file; a name for messages where the image is in no file.
        height: of the image after its EXIF rotation, in pixels.
        width: of the image after its EXIF rotation, in pixels.
        labels: class of each object, 0..C-1 into ``DetectionData.categories``.
        bbox_xywh: left, top, width, height of each object, in pixels of the image, exactly as in the file.
        area: area of each object in square pixels: the file's own, or the box's where the file has none.
        crowd: True where the annotation marks a group rather than one object.
        annotation_ids: the file's own ids of the annotations.
        segmentations: per object COCO polygons, an RLE, a ``MaskFile`` or None; an empty tuple where the file has
            none at all.
        source: returns the image where it is in no file.
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
    segmentations: Sequence[Any] = ()
    source: ImageSource | None = None

    def boxes(self) -> Float32[np.ndarray, "n 4"]:
        """Return corner boxes, clipped to the image, in its pixels."""
        xyxy = self.bbox_xywh.copy()
        xyxy[:, 2:] += xyxy[:, :2]
        return xyxy.clip(0, [self.width, self.height, self.width, self.height]).astype(np.float32)

    def read(self) -> UInt8[np.ndarray, "h w 3"]:
        """Read the image.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the image cannot be read, or its size is not the one that the annotations are for.
        """
        image = read_image(self.path) if self.source is None else self.source()
        height, width = image.shape[:2]
        if (height, width) != (self.height, self.width):
            raise ValueError(
                f"{self.path} has {width} x {height} pixels, but its annotations are for {self.width} x "
                f"{self.height}: restore the image, or correct its width and height in the annotation file"
            )
        return image


class ObjectColumns(NamedTuple):
    """All objects of some images, a row for each; see ``Record``.

    Args:
        image_index: of each object, into the images.
        labels: of each object.
        bbox_xywh: of each object.
        area: of each object.
        crowd: of each object.
    """

    image_index: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    bbox_xywh: Float64[np.ndarray, "n 4"]
    area: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]


class ColumnarRecords(Sequence[Record]):
    """Records that are made of arrays when they are asked for, each time anew."""

    @abstractmethod
    def columns(self) -> ObjectColumns:
        """Return all objects as arrays."""

    @abstractmethod
    def image_sizes(self) -> Int64[np.ndarray, "images 2"]:
        """Return (height, width) of each image."""

    @abstractmethod
    def file_names(self) -> list[str]:
        """Return the name of each image's file, without its folders."""

    @abstractmethod
    def select(self, indices: Int64[np.ndarray, " _selected"]) -> Sequence[Record]:
        """Return a sequence of some of the records, over the same arrays."""

    def __add__(self, other: Sequence[Record]) -> tuple[Record, ...]:
        return (*self, *other)

    def __mul__(self, times: int) -> Sequence[Record]:
        return self.select(np.tile(np.arange(len(self)), times))


@dataclass(frozen=True)
class PseudoPart:
    """The last images of a data set, with labels that a detector made; see ``add_pseudo_labels``.

    Args:
        count: of the images.
        weight: how often an epoch shows each, on average.
    """

    count: int
    weight: float

    @property
    def drawn(self) -> int:
        """Number of images that an epoch shows of them: at least one, where there are any."""
        return max(min(1, self.count), round(self.count * self.weight))


@dataclass(frozen=True, eq=False)
class DetectionData:
    """A data set, or one split of it, checked and ready for training or evaluation.

    Args:
        records: the images; those without objects included. A tuple, or a sequence that makes them of arrays.
        categories: label ``i`` is ``categories[i]``.
        source: the annotation file or folder, for messages.
        notes: what was dropped or repaired while reading, one line each, for the user.
        findings: the same, each with its kind and place.
        facts: of each image's file, as its hashes; as long as ``records``, or empty where nobody looked.
        dropped: images with the objects that were dropped on reading, as they have no area inside their image, and
            no other objects. Their ``image_id`` tells which of ``records`` they belong to.
        stated_sizes: (height, width) that the file states for an image, by ``image_id``, where it is not its own.
        file_ids: id of a class in the annotation file, by its label, where it is not that of ``categories``.
        pseudo: the last of the images, where a detector made their labels; None where there are none.
    """

    records: Sequence[Record]
    categories: tuple[Category, ...]
    source: Path
    notes: tuple[str, ...] = field(default=())
    findings: tuple[Finding, ...] = ()
    facts: tuple[ImageFacts, ...] = ()
    dropped: Sequence[Record] = ()
    stated_sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    file_ids: Mapping[int, int] = field(default_factory=dict)
    pseudo: PseudoPart | None = None

    @property
    def num_labeled(self) -> int:
        """Number of images, first of all, whose labels count in full."""
        return len(self.records) - (self.pseudo.count if self.pseudo else 0)

    @property
    def epoch_images(self) -> int:
        """Number of images that an epoch of training shows."""
        return self.num_labeled + (self.pseudo.drawn if self.pseudo else 0)

    def select(self, indices: Int64[np.ndarray, " _selected"]) -> DetectionData:
        """Return a data set of some of the images, by rising indices; without facts of their files."""
        pseudo = self.pseudo and replace(self.pseudo, count=int((indices >= self.num_labeled).sum()))
        return replace(self, records=take_records(self.records, indices), facts=(), pseudo=pseudo)

    def draw_image(self, rng: np.random.Generator) -> int:
        """Draw the index of an image as often as an epoch shows it."""
        index = int(rng.integers(self.epoch_images))
        if self.pseudo is None or index < self.num_labeled:
            return index
        return self.num_labeled + int(rng.integers(self.pseudo.count))

    def category_ids(self) -> list[int]:
        """Return the id of each class in the annotation file, in the order of the labels."""
        return [self.file_ids.get(label, one.id) for label, one in enumerate(self.categories)]


def object_columns(records: Sequence[Record]) -> ObjectColumns:
    """Return all objects of some images as arrays, in the order of the images."""
    if isinstance(records, ColumnarRecords):
        return records.columns()
    counts = [len(record.labels) for record in records]
    # Each column starts with an empty array, so that no images are no rows.
    return ObjectColumns(
        image_index=np.repeat(np.arange(len(counts)), counts),
        labels=np.concatenate([np.empty(0, np.int64), *(record.labels for record in records)]),
        bbox_xywh=np.concatenate([np.empty((0, 4)), *(record.bbox_xywh for record in records)]),
        area=np.concatenate([np.empty(0), *(record.area for record in records)]),
        crowd=np.concatenate([np.empty(0, np.bool_), *(record.crowd for record in records)]),
    )


def image_sizes(records: Sequence[Record]) -> Int64[np.ndarray, "images 2"]:
    """Return (height, width) of each image."""
    if isinstance(records, ColumnarRecords):
        return records.image_sizes()
    return np.array([(record.height, record.width) for record in records], dtype=np.int64).reshape(-1, 2)


def file_names(records: Sequence[Record]) -> list[str]:
    """Return the name of each image's file, without its folders."""
    if isinstance(records, ColumnarRecords):
        return records.file_names()
    return [record.path.name for record in records]


def take_records(records: Sequence[Record], indices: Int64[np.ndarray, " selected"]) -> Sequence[Record]:
    """Select records by their indices; those of a packed sequence stay packed."""
    if isinstance(records, ColumnarRecords):
        return records.select(indices)
    return tuple(records[index] for index in indices.tolist())


def max_objects(data: DetectionData) -> int:
    """Return the number of objects in the fullest image; crowd regions are not objects."""
    objects = object_columns(data.records)
    return int(np.bincount(objects.image_index[~objects.crowd]).max(initial=0))
