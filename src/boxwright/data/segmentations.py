"""Segmentations of a whole data set, packed: polygons as numbers in one array, everything else as text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from boxwright.data.packing import PackedTexts, join_columns, join_starts, position, starts_of

_EXACT = 2**53
"""Whole numbers up to this one are exact as float64."""


@dataclass(frozen=True, eq=False)
class Segmentations(Sequence[Any]):
    """Segmentations as COCO has them, packed: polygons, run lengths, names of files, or None.

    Args:
        part_starts: of each segmentation into the polygons, and the end of the last.
        value_starts: of each polygon into ``values``, and the end of the last.
        values: coordinates of all polygons.
        texts: JSON of each segmentation that is no polygons; empty where there is none.
    """

    part_starts: Int64[np.ndarray, " n_and_1"]
    value_starts: Int64[np.ndarray, " parts_and_1"]
    values: Float64[np.ndarray, " values"]
    texts: PackedTexts

    @classmethod
    def pack(cls, segmentations: Iterable[Any]) -> Segmentations:
        """Pack segmentations; what is no valid polygon comes back as it was."""
        polygons: list[Any] = []
        texts = []
        for one in segmentations:
            is_packed = _is_polygons(one)
            polygons.append(one if is_packed else [])
            texts.append("" if is_packed or one is None else json.dumps(one, default=_to_list))
        return cls.of_polygons(polygons, PackedTexts.pack(texts))

    @classmethod
    def of_polygons(cls, polygons: Sequence[Any], texts: PackedTexts) -> Segmentations:
        """Pack polygons, and texts for the segmentations that have none."""
        parts = list(chain.from_iterable(polygons))
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        return cls(
            part_starts=starts_of(np.fromiter(map(len, polygons), dtype=np.int64, count=len(polygons))),
            value_starts=starts_of(lengths),
            values=np.fromiter(chain.from_iterable(parts), dtype=np.float64, count=int(lengths.sum())),
            texts=texts,
        )

    @classmethod
    def join(cls, parts: Sequence[Segmentations]) -> Segmentations:
        """Put segmentations one after the other."""
        return cls(
            join_starts([part.part_starts for part in parts]),
            join_starts([part.value_starts for part in parts]),
            join_columns([part.values for part in parts], np.float64),
            PackedTexts.join([part.texts for part in parts]),
        )

    def has_any(self) -> bool:
        """Return True where one of them is not None."""
        return len(self.value_starts) > 1 or len(self.texts.content) > 0

    def __len__(self) -> int:
        return len(self.part_starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[one] for one in range(*index.indices(len(self))))
        index = position(index, len(self))
        first, last = self.part_starts[index : index + 2].tolist()
        if last > first:
            bounds = self.value_starts[first : last + 1].tolist()
            return [self.values[a:b].tolist() for a, b in pairwise(bounds)]
        text = self.texts[index]
        return json.loads(text) if text else None

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def _is_polygons(one: Any) -> bool:
    """Tell whether a segmentation is polygons of finite numbers that are exact as float64."""
    if not isinstance(one, list) or not one:
        return False
    for part in one:
        if not isinstance(part, list):
            return False
        for value in part:
            if type(value) is float:
                if not -sys.float_info.max <= value <= sys.float_info.max:
                    return False
            elif type(value) is not int or not -_EXACT <= value <= _EXACT:
                return False
    return True


def _to_list(value: Any) -> Any:
    """Return numpy's arrays and numbers as JSON has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a segmentation holds {type(value).__name__}, which COCO's form has not")
