"""Listed images of a whole data set, packed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxwright.data.annotations import ListedImage
from boxwright.data.packing import Ids, PackedTexts, join_columns, join_ids, pack_ids, position

NO_SIZE = np.iinfo(np.int64).min
"""Stands for a height or width that the file does not state."""


@dataclass(frozen=True, eq=False)
class ListedImages(Sequence[ListedImage]):
    """Images in files, as a reader lists them.

    Args:
        ids: of each image.
        names: ``file_name`` of each image.
        sizes: (height, width) that the annotation file states, or ``NO_SIZE`` twice.
    """

    ids: Ids
    names: PackedTexts
    sizes: Int64[np.ndarray, "n 2"]

    @classmethod
    def pack(cls, images: Sequence[ListedImage]) -> ListedImages:
        """Pack images that are all in files."""
        limits = np.iinfo(np.int64)
        stated = [(NO_SIZE, NO_SIZE) if image.size is None else image.size for image in images]
        sizes = [[min(max(side, limits.min), limits.max) for side in size] for size in stated]
        return cls(
            pack_ids([image.id for image in images]),
            PackedTexts.pack(image.file_name for image in images),
            np.array(sizes, dtype=np.int64).reshape(-1, 2),
        )

    @classmethod
    def join(cls, parts: Sequence[ListedImages]) -> ListedImages:
        """Put images one after the other."""
        return cls(
            join_ids([part.ids for part in parts]),
            PackedTexts.join([part.names for part in parts]),
            join_columns([part.sizes for part in parts], np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        index = position(index, len(self))
        height, width = self.sizes[index].tolist()
        size = None if height == NO_SIZE else (height, width)
        return ListedImage(int(self.ids[index]), self.names[index], size)

    def __iter__(self) -> Iterator[ListedImage]:
        return (self[index] for index in range(len(self)))


def stated_sizes(images: Sequence[ListedImage]) -> Int64[np.ndarray, "n 2"]:
    """Return (height, width) that the annotation file states for each image; ``NO_SIZE`` twice where it does not."""
    return images.sizes if isinstance(images, ListedImages) else ListedImages.pack(images).sizes
