"""Millions of images, listed before they are predicted: packed, each once, with a hash of what they are."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from boxwright.data.packing import PackedTexts
from boxwright.sources.listing import list_source
from boxwright.sources.locations import absolute_location, describe_location, describe_version
from boxwright.sources.source_image import SourceImage

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""Whole numbers that fit into 64 bits."""


@dataclass(frozen=True, eq=False)
class ImageList(Sequence[SourceImage]):
    """Images in a few columns, of about a hundred bytes each.

    Args:
        names: of the images; no two are the same.
        locations: of their bytes, see ``pack_location``; no two are the same.
        ids: that manifests give them; empty where they give none.
    """

    names: PackedTexts
    locations: PackedTexts
    ids: PackedTexts

    @property
    def has_ids(self) -> bool:
        """Tell whether every image has an id."""
        return bool((np.diff(self.ids.starts) > 0).all())

    @property
    def has_whole_ids(self) -> bool:
        """Tell whether all ids are whole numbers of 64 bits."""
        return self.has_ids and all(_WHOLE.fullmatch(one) for one in self.ids)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            start, stop, _ = index.indices(len(self))
            columns = (_cut(column, start, stop) for column in (self.names, self.locations, self.ids))
            return ImageList(*columns)
        return SourceImage(self.names[index], self.locations[index], self.ids[index])

    def __iter__(self) -> Iterator[SourceImage]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images to predict, and what tells them from others.

    Args:
        images: each once, in order.
        sha256: of names, ids and locations, and of sizes and times of the last change of the files.
    """

    images: ImageList
    sha256: str


def collect_images(texts: Iterable[str], note: Callable[[str], None]) -> Inputs:
    """List the images that some texts mean; see ``list_source``.

    Args:
        texts: paths, addresses and globs.
        note: takes what the user should know.

    Raises:
        FileNotFoundError: a path or a glob without a match.
        ValueError: a folder, a list or an archive without images, or a damaged one; or several images have one id.
    """
    columns, digest = [_Packer() for _ in range(3)], hashlib.sha256()
    for text in texts:
        for one in list_source(text, note):
            location = absolute_location(one.location)
            version = one.version or describe_version(location)
            digest.update(_encode("\n".join((one.name, one.id, location, version, ""))))
            for column, value in zip(columns, (one.name, location, one.id), strict=True):
                column.add(value)
    listed = ImageList(*(column.pack() for column in columns))
    # Links are images of their own: two names of one file are both predicted.
    listed = _select(listed, np.flatnonzero(_is_first(listed.locations)))
    if listed.has_ids and not _is_first(listed.ids).all():
        raise ValueError("several images of the manifest have the same id")
    return Inputs(_distinguish(listed), digest.hexdigest())


def find_repeated(texts: Sequence[str]) -> str | None:
    """Return a text that is there twice; None where there is none."""
    repeated = np.flatnonzero(~_is_first(texts))
    return texts[int(repeated[0])] if len(repeated) else None


class _Packer:
    """Packs texts one after the other."""

    def __init__(self) -> None:
        self._content, self._ends = bytearray(), array("q", [0])

    def add(self, text: str) -> None:
        self._content += _encode(text)
        self._ends.append(len(self._content))

    def pack(self) -> PackedTexts:
        return PackedTexts(np.frombuffer(self._content, dtype=np.uint8), np.array(self._ends, dtype=np.int64))


def _is_first(texts: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Tell of each text whether it is the first of its kind.

    By hashes of 64 bits: of a million texts, two others have the same one in 40 million cases.
    """
    digests = (hashlib.blake2b(_encode(text), digest_size=8).digest() for text in texts)
    hashes = np.frombuffer(b"".join(digests), dtype=np.uint64)
    first = np.zeros(len(hashes), dtype=np.bool_)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


def _select(images: ImageList, rows: npt.NDArray[np.int64]) -> ImageList:
    if len(rows) == len(images):
        return images
    columns = (images.names, images.locations, images.ids)
    return ImageList(*(_pack(column[row] for row in rows.tolist()) for column in columns))


def _distinguish(images: ImageList) -> ImageList:
    """Return the same with where it is for a name where two images have the same name."""
    repeated = ~_is_first(images.names)
    if not repeated.any():
        return images
    several = {images.names[row] for row in np.flatnonzero(repeated).tolist()}
    names = (describe_location(one.location) if one.name in several else one.name for one in images)
    return replace(images, names=_pack(names))


def _pack(texts: Iterable[str]) -> PackedTexts:
    packer = _Packer()
    for text in texts:
        packer.add(text)
    return packer.pack()


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _cut(texts: PackedTexts, start: int, stop: int) -> PackedTexts:
    starts = texts.starts[start : stop + 1]
    return PackedTexts(texts.content[starts[0] : starts[-1]].copy(), starts - starts[0])
