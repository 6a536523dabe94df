"""All objects of a split as arrays: what the checks of boxes and classes compute with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.doctor.box_forms import BoxForm, FileBoxes, recognize_form
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.records import DetectionData, Record, image_sizes, object_columns


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """All objects of a split, a row for each.

    Args:
        records: the images.
        names: of each image, the path inside the folder that has all of them.
        class_names: label ``i`` is the class ``class_names[i]``.
        image_index: of each object, into ``records``.
        labels: of each object.
        xyxy: corners of each box, not clipped to the image.
        area: of each object, as the file states it or of its box.
        crowd: True where the annotation marks a group.
        sizes: (width, height) of each image.
        dropped: see ``DetectionData``.
        stated_sizes: see ``DetectionData``.
    """

    records: Sequence[Record]
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    image_index: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    xyxy: Float64[np.ndarray, "n 4"]
    area: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    sizes: Int64[np.ndarray, "images 2"]
    dropped: Sequence[Record] = ()
    stated_sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, data: DetectionData) -> ObjectTable:
        """Collect the objects of a split."""
        objects = object_columns(data.records)
        boxes = objects.bbox_xywh
        return cls(
            records=data.records,
            names=image_names(data.records),
            class_names=tuple(category.name for category in data.categories),
            image_index=objects.image_index,
            labels=objects.labels,
            xyxy=np.concatenate((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), axis=1),
            area=objects.area,
            crowd=objects.crowd,
            sizes=image_sizes(data.records)[:, ::-1],
            dropped=data.dropped,
            stated_sizes=data.stated_sizes,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def starts(self) -> Int64[np.ndarray, " images"]:
        """Row of each image's first object."""
        return np.searchsorted(self.image_index, np.arange(len(self.records)))

    @cached_property
    def box_sizes(self) -> Float64[np.ndarray, "n 2"]:
        """(width, height) of each box."""
        return np.asarray(self.xyxy[:, 2:] - self.xyxy[:, :2])

    @cached_property
    def image_sizes(self) -> Float64[np.ndarray, "n 2"]:
        """(width, height) of the image of each object."""
        return np.asarray(self.sizes[self.image_index], dtype=np.float64)

    @cached_property
    def box_area(self) -> Float64[np.ndarray, " n"]:
        """Width times height of each box."""
        return np.asarray(self.box_sizes.prod(1))

    @cached_property
    def file_boxes(self) -> FileBoxes:
        """Return the boxes of all objects as the file has them: first those of the table, then those dropped."""
        dropped = object_columns(self.dropped)
        xywh = np.concatenate((self.xyxy[:, :2], self.box_sizes), axis=1)
        images = [*self.records, *self.dropped] if self.stated_sizes else []
        sizes = np.concatenate((self.sizes, image_sizes(self.dropped)[:, ::-1])).astype(np.float64)
        stated = sizes.copy()
        for at, record in enumerate(images):
            stated[at] = self.stated_sizes.get(record.image_id, (record.height, record.width))[::-1]
        index = np.concatenate((self.image_index, dropped.image_index + len(self.records)))
        return FileBoxes(np.concatenate((xywh, dropped.bbox_xywh)), sizes[index], stated[index])

    @cached_property
    def form(self) -> BoxForm | None:
        """Form that the boxes have other than left, top, width and height in pixels; see ``recognize_form``."""
        return recognize_form(self.file_boxes)

    def annotation_id(self, row: int) -> int:
        """Return the file's id of an object's annotation."""
        index = int(self.image_index[row])
        return self.records[index].annotation_ids[row - int(self.starts[index])]

    def finding(self, kind: FindingKind, row: int, detail: str = "") -> Finding:
        """Name an object: the subject is its image, the detail begins with its annotation."""
        annotation = f"annotation {self.annotation_id(row)} ({self.class_names[self.labels[row]]})"
        return Finding(kind, self.names[self.image_index[row]], f"{annotation}: {detail}" if detail else annotation)


def image_names(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the path of each image inside the deepest folder that has all of them, with forward slashes."""
    paths = [record.path.as_posix() for record in records]
    if not paths:
        return ()
    folders = zip(*(path.split("/")[:-1] for path in (min(paths), max(paths))), strict=False)
    common = takewhile(lambda names: names[0] == names[1], folders)
    cut = sum(len(name) + 1 for name, _ in common)
    return tuple(path[cut:] for path in paths)
