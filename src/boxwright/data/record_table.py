"""Records of a whole data set in a few arrays: made one by one when they are asked for, shared by processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from boxwright.data.annotations import ListedImage
from boxwright.data.mask_file import MaskFile
from boxwright.data.packing import Ids, position
from boxwright.data.records import ColumnarRecords, ObjectColumns, Record


@dataclass(frozen=True, eq=False, kw_only=True)
class RecordTable(ColumnarRecords):
    """Images with their objects, sorted by image; a sequence of records.

    A slice, or ``select``, is such a sequence over the same arrays.

    Args:
        images: as they are listed.
        folder: of the images that are in files.
        sizes: (height, width) of each image.
        starts: of each image's objects, and the end of the last.
        rows: of each object, in ``segmentations``.
        labels: of each object.
        bbox_xywh: of each object, in pixels.
        area: of each object.
        crowd: of each object.
        annotation_ids: of each object.
        segmentations: see ``Annotations``.
        mask_folders: folders beside ``folder`` that the names of PNG files may be relative to.
        has_fractions: polygons are fractions of the image's width and height.
        selected: indices of the images in this sequence; None for all.
    """

    images: Sequence[ListedImage]
    folder: Path
    sizes: Int64[np.ndarray, "images 2"]
    starts: Int64[np.ndarray, " images_and_1"]
    rows: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    bbox_xywh: Float64[np.ndarray, "n 4"]
    area: Float64[np.ndarray, " n"]
    crowd: Bool[np.ndarray, " n"]
    annotation_ids: Ids
    segmentations: Sequence[Any] = ()
    mask_folders: tuple[Path, ...] = ()
    has_fractions: bool = False
    selected: Int64[np.ndarray, " selected"] | None = None
    _mask_files: dict[int, MaskFile] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.images) if self.selected is None else len(self.selected)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        at = position(int(index), len(self))
        return self._record(at if self.selected is None else int(self.selected[at]))

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Int64[np.ndarray, " _selected"]) -> RecordTable:
        """Return a sequence of some of the records, over the same arrays."""
        return replace(self, selected=indices if self.selected is None else self.selected[indices])

    def image_sizes(self) -> Int64[np.ndarray, "images 2"]:
        """Return (height, width) of each image."""
        return self.sizes if self.selected is None else self.sizes[self.selected]

    def file_names(self) -> list[str]:
        """Return the name of each image's file, without its folders."""
        images = self.images if self.selected is None else (self.images[int(index)] for index in self.selected)
        return [image.file_name.rpartition("/")[2] for image in images]

    def columns(self) -> ObjectColumns:
        """Return all objects as arrays."""
        counts = np.diff(self.starts)
        if self.selected is None:
            index = np.repeat(np.arange(len(counts)), counts)
            return ObjectColumns(index, self.labels, self.bbox_xywh, self.area, self.crowd)
        counts = counts[self.selected]
        index = np.repeat(np.arange(len(counts)), counts)
        before = np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.arange(len(index)) - before + np.repeat(self.starts[:-1][self.selected], counts)
        return ObjectColumns(index, self.labels[rows], self.bbox_xywh[rows], self.area[rows], self.crowd[rows])

    def _record(self, index: int) -> Record:
        start, end = self.starts[index : index + 2].tolist()
        image = self.images[index]
        height, width = self.sizes[index].tolist()
        ids = self.annotation_ids[start:end]
        return Record(
            image_id=image.id,
            path=self.folder / image.file_name if image.source is None else Path(image.file_name),
            height=height,
            width=width,
            labels=self.labels[start:end],
            bbox_xywh=self.bbox_xywh[start:end],
            area=self.area[start:end],
            crowd=self.crowd[start:end],
            annotation_ids=tuple(ids.tolist()) if isinstance(ids, np.ndarray) else ids,
            segmentations=self._segmentations_of(index, start, end),
            source=image.source,
        )

    def _segmentations_of(self, index: int, start: int, end: int) -> Sequence[Any]:
        if not len(self.segmentations) or start == end:
            return ()
        return _RecordSegmentations(lambda at: self._segmentation(index, start + at), end - start)

    def _segmentation(self, index: int, at: int) -> Any:
        """Return the segmentation of one object of an image."""
        row = int(self.rows[at])
        height, width = self.sizes[index].tolist()
        entry = self.segmentations[row]
        if isinstance(entry, str):
            # Kept, because its mask is read once.
            folders = (self.folder, *self.mask_folders)
            return self._mask_files.setdefault(row, MaskFile(entry, folders, height, width))
        if self.has_fractions and isinstance(entry, list):
            return [(np.array(part).reshape(-1, 2) * (width, height)).ravel().tolist() for part in entry]
        return entry


class _RecordSegmentations(Sequence[Any]):
    """Segmentations of one image, unpacked when they are asked for; equal to a tuple of them.

    Args:
        unpack: returns one of them by its index.
        count: of them.
    """

    # Not the table itself: whoever checks the type of a sequence looks at one of its items, which would have another.
    def __init__(self, unpack: Callable[[int], Any], count: int) -> None:
        self._unpack, self._count = unpack, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[one] for one in range(*index.indices(len(self))))
        return self._unpack(position(int(index), len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple | list | _RecordSegmentations) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(len(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)
