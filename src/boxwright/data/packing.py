"""Columns without Python objects: texts and ids of millions of rows, shared by processes without copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, overload

import numpy as np
from jaxtyping import Int64, UInt8

Ids = Int64[np.ndarray, " _n"] | tuple[int, ...]
"""Whole numbers of any size: an array, or Python's numbers where one of them has more than 64 bits."""


@dataclass(frozen=True, eq=False)
class PackedTexts(Sequence[str]):
    """Texts, one after the other in one array.

    Args:
        content: of all of them, in UTF-8.
        starts: of each in ``content``, and the end of the last.
    """

    content: UInt8[np.ndarray, " bytes"]
    starts: Int64[np.ndarray, " n_and_1"]

    @classmethod
    def pack(cls, texts: Iterable[str]) -> PackedTexts:
        """Pack texts; halves of letters, which JSON allows, are kept."""
        return cls.pack_bytes([text.encode("utf-8", "surrogatepass") for text in texts])

    @classmethod
    def pack_bytes(cls, encoded: Sequence[bytes]) -> PackedTexts:
        """Pack texts in UTF-8."""
        lengths = np.fromiter(map(len, encoded), dtype=np.int64, count=len(encoded))
        return cls(np.frombuffer(bytearray(b"".join(encoded)), dtype=np.uint8), starts_of(lengths))

    @classmethod
    def join(cls, parts: Sequence[PackedTexts]) -> PackedTexts:
        """Put columns one after the other."""
        return cls(join_columns([part.content for part in parts], np.uint8), join_starts([p.starts for p in parts]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        index = position(index, len(self))
        return self.content[self.starts[index] : self.starts[index + 1]].tobytes().decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


def pack_ids(ids: Sequence[int]) -> Ids:
    """Pack ids: none of them is rounded."""
    try:
        return np.array(ids, dtype=np.int64)
    except OverflowError:
        return tuple(int(one) for one in ids)


def join_ids(parts: Sequence[Ids]) -> Ids:
    """Put columns of ids one after the other."""
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if len(arrays) == len(parts):
        joined: Int64[np.ndarray, " n"] = join_columns(arrays, np.int64)
        return joined
    return tuple(chain.from_iterable(list_ids(part) for part in parts))


def list_ids(ids: Any) -> list[int]:
    """Return ids as Python's numbers."""
    return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)


def select_ids(ids: Ids, rows: Int64[np.ndarray, " m"]) -> Ids:
    """Select ids by their indices."""
    return ids[rows] if isinstance(ids, np.ndarray) else tuple(ids[row] for row in rows.tolist())


def starts_of(lengths: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n_and_1"]:
    """Return the start of each of some parts that follow each other, and the end of the last."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)])


def join_starts(parts: Sequence[Int64[np.ndarray, " _n"]]) -> Int64[np.ndarray, " n_and_1"]:
    """Put starts one after the other, as their parts are."""
    return starts_of(join_columns([np.diff(part) for part in parts], np.int64))


def join_columns(parts: Sequence[Any], dtype: Any) -> Any:
    """Put arrays one after the other; of none, an empty one."""
    return np.concatenate(parts) if len(parts) else np.zeros(0, dtype=dtype)


def position(index: int, length: int) -> int:
    """Return an index of a sequence counted from its begin.

    Raises:
        IndexError: it is beyond the sequence.
    """
    if not -length <= index < length:
        raise IndexError(f"index {index} is beyond a sequence of {length}")
    return index % length
