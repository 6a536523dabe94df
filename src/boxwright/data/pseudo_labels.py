"""Images with labels that a detector made, as a weighted part of a data set to train on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from boxwright.data.packing import position
from boxwright.data.records import (
    ColumnarRecords,
    DetectionData,
    ObjectColumns,
    PseudoPart,
    Record,
    file_names,
    image_sizes,
    object_columns,
    take_records,
)


def add_pseudo_labels(data: DetectionData, pseudo: DetectionData, weight: float) -> DetectionData:
    """Append images with pseudo-labels to a data set.

    An epoch shows every other image once, and ``weight`` times as many of these as there are, in turn: with 0.5 each
    of them in every second epoch, with 2 each of them twice. Over epochs that is the sum of the losses of all images,
    these multiplied by the weight, but an image that is not shown takes no time. Losses of detectors are divided by
    the objects of a step, so that it is so on average there.

    Source: Lee, "Pseudo-Label", 2013, the overall loss: the mean of labeled images, plus a coefficient times that of
    the others. With n and m of them, a weight is a coefficient of ``weight * m / n``. Differs in being constant, where
    theirs rises, and in labels that are made once.

    Args:
        data: the images whose labels count in full.
        pseudo: the others, of the same classes.
        weight: of each of them; above 0.

    Raises:
        ValueError: the weight is out of range, classes differ, or ``data`` has pseudo-labels already.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight of pseudo-labels is a number above 0, not {weight}")
    if data.pseudo is not None or data.categories != pseudo.categories:
        raise ValueError(f"{pseudo.source}: pseudo-labels are added once, and of the classes of {data.source}")
    has_facts = all(len(one.facts) == len(one.records) for one in (data, pseudo))
    return replace(
        data,
        records=JoinedRecords((data.records, pseudo.records)),
        facts=(*data.facts, *pseudo.facts) if has_facts else (),
        pseudo=PseudoPart(len(pseudo.records), weight),
    )


@dataclass(frozen=True, eq=False)
class JoinedRecords(ColumnarRecords):
    """Records of several sequences, one after the other; none is made before it is asked for.

    Args:
        parts: the sequences.
    """

    parts: tuple[Sequence[Record], ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        at = position(int(index), len(self))
        for part in self.parts:
            if at < len(part):
                return part[at]
            at -= len(part)
        raise AssertionError("an index that is in range is in one of the parts")

    def columns(self) -> ObjectColumns:
        """Return all objects as arrays."""
        tables = [object_columns(part) for part in self.parts]
        starts = np.cumsum([0, *map(len, self.parts)])
        index = [table.image_index + start for table, start in zip(tables, starts, strict=False)]
        rest = (np.concatenate(columns) for columns in zip(*(table[1:] for table in tables), strict=True))
        return ObjectColumns(np.concatenate(index), *rest)

    def image_sizes(self) -> Int64[np.ndarray, "images 2"]:
        """Return (height, width) of each image."""
        return np.concatenate([image_sizes(part) for part in self.parts])

    def file_names(self) -> list[str]:
        """Return the name of each image's file, without its folders."""
        return [name for part in self.parts for name in file_names(part)]

    def select(self, indices: Int64[np.ndarray, " _selected"]) -> Sequence[Record]:
        """Return a sequence of some of the records; packed ones where those of each part follow each other."""
        starts = np.cumsum([0, *map(len, self.parts)])
        of = np.searchsorted(starts, indices, side="right") - 1
        if (np.diff(of) < 0).any():
            return tuple(self[int(index)] for index in indices)
        parts = zip(self.parts, starts, range(len(self.parts)), strict=False)
        return JoinedRecords(tuple(take_records(part, indices[of == k] - start) for part, start, k in parts))
