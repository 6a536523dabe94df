"""Images that are in a data set more than once: the same file, the same bytes, nearly the same pixels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_inspection import NEAR_HASHES, ImageFacts
from boxwright.data.records import DetectionData, Record

SAME_BYTES = FindingKind(
    "same_bytes", "warning", "images have the same bytes as another one of their split", "--fix merges them"
)
SAME_BYTES_OTHER_CLASS = FindingKind(
    "same_bytes_other_class",
    "warning",
    "images have the same bytes as one of another class",
    "one of them is wrong; --fix leaves both",
)
NEAR_IMAGE = FindingKind(
    "near_image", "note", "images are nearly the same as another one of their split", "are both annotated likewise?"
)
SAME_FILE_IN_SPLITS = FindingKind(
    "same_file_in_splits",
    "warning",
    "image files are listed in two splits",
    "metrics are too good: take them out of one",
)
TWIN_SPLIT = FindingKind(
    "twin_split", "note", "splits have the very images of another one", "they are not compared with other splits"
)
TWIN_OF_TRAIN = FindingKind(
    "twin_of_train",
    "warning",
    "splits have the very images of train",
    "metrics are those of images learned by heart: measure with others",
)
SAME_BYTES_IN_SPLITS = FindingKind(
    "same_bytes_in_splits",
    "warning",
    "images have the same bytes as one of another split",
    "metrics are too good: take them out of one",
)
NEAR_IMAGE_IN_SPLITS = FindingKind(
    "near_image_in_splits",
    "warning",
    "images are nearly the same as one of another split",
    "metrics are too good: move them into one split",
)
NEAR_NOT_SOUGHT = FindingKind(
    "near_not_sought", "note", "data sets are too large to look for images that are nearly the same"
)

MOST_IMAGES = 150_000
"""Images that are compared with each other, at most: the time grows with the square."""

_ROWS = 256
_MOST_VERIFIED = 2000
_SIDE = 32
_LEAST_CORRELATION = 0.95
_MOST_DIFFERENT = 32.0
"""Difference of brightness, of 255, beyond which a cell of 32 x 32 shows something else."""


class _Copy(NamedTuple):
    """An image of a split, and what tells it from others."""

    split: str
    name: str
    record: Record
    facts: ImageFacts | None


def find_repeated_images(
    splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable], *, near: bool = True
) -> list[tuple[str, Finding]]:
    """Find images that repeat an earlier one; splits are looked at in their order.

    Args:
        splits: by their names.
        objects: of each split.
        near: also look for those that are nearly the same, which takes longer.

    Returns:
        The split of each finding, and the finding.
    """
    twins = _find_twins(splits)
    images = list(_list_images({name: data for name, data in splits.items() if name not in twins}, objects))
    findings, repeated = _find_same(images)
    findings += [
        (name, Finding(TWIN_OF_TRAIN if "train" in (name, other) else TWIN_SPLIT, name, f"as {other}"))
        for name, other in twins.items()
    ]
    rest = [index for index in range(len(images)) if index not in repeated]
    if near and len(rest) > MOST_IMAGES:
        findings.append(("", Finding(NEAR_NOT_SOUGHT, f"{len(rest):,} images")))
    elif near:
        findings += _find_near([images[index] for index in rest])
    return findings


def repeated_in_split(data: DetectionData) -> dict[int, int]:
    """Return the index of the first image with the file or the bytes of a later one, by the index of the later."""
    table = ObjectTable.of(data)
    images = list(_list_images({"": data}, {"": table}))
    return _find_same(images)[1]


def have_other_classes(one: Record, other: Record) -> bool:
    """Tell whether two whole images have different classes, as in folders of classes."""
    return _is_whole(one) and _is_whole(other) and int(one.labels[0]) != int(other.labels[0])


def _is_whole(record: Record) -> bool:
    return len(record.labels) == 1 and record.bbox_xywh[0].tolist() == [0, 0, record.width, record.height]


def _find_twins(splits: Mapping[str, DetectionData]) -> dict[str, str]:
    """Return the splits that have the very images of an earlier one, as where a file has other masks of them."""
    paths = {
        name: frozenset(record.path for record in data.records if record.source is None)
        for name, data in splits.items()
    }
    first: dict[frozenset[Path], str] = {}
    return {name: other for name, files in paths.items() if files and (other := first.setdefault(files, name)) != name}


def _list_images(splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable]) -> Iterator[_Copy]:
    for split, data in splits.items():
        facts = data.facts or (None,) * len(data.records)
        for record, name, fact in zip(data.records, objects[split].names, facts, strict=True):
            yield _Copy(split, name, record, fact)


def _find_same(images: list[_Copy]) -> tuple[list[tuple[str, Finding]], dict[int, int]]:
    """Return findings about the same files and the same bytes, and the first image of each of these images."""
    findings: list[tuple[str, Finding]] = []
    first_of: dict[int, int] = {}
    first_of_path: dict[object, int] = {}
    first_of_bytes: dict[bytes, int] = {}
    for index, one in enumerate(images):
        if one.record.source is not None:
            continue
        first = first_of_path.setdefault(one.record.path, index)
        # A file that is listed twice in one split was named when it was located.
        kinds: tuple[FindingKind | None, FindingKind] = (None, SAME_FILE_IN_SPLITS)
        if first == index and one.facts is not None and one.facts.digest is not None:
            first = first_of_bytes.setdefault(one.facts.digest, index)
            other_class = have_other_classes(one.record, images[first].record)
            kinds = (SAME_BYTES_OTHER_CLASS if other_class else SAME_BYTES, SAME_BYTES_IN_SPLITS)
        if first != index:
            findings += _name_pair(one, images[first], *kinds)
            first_of[index] = first
    return findings, first_of


def _name_pair(
    one: _Copy, other: _Copy, within: FindingKind | None, across: FindingKind, text: str = ""
) -> list[tuple[str, Finding]]:
    if one.split != other.split:
        return [(one.split, Finding(across, one.name, f"as {other.name} of {other.split}{text}"))]
    return [] if within is None else [(one.split, Finding(within, one.name, f"as {other.name}{text}"))]


def _find_near(images: list[_Copy]) -> list[tuple[str, Finding]]:
    """Name each image that is nearly an earlier one of its split once, and one of another split once."""
    images = [one for one in images if one.facts is not None and one.facts.dhash is not None]
    findings, named, verified = [], set(), 0

    @lru_cache(maxsize=512)
    def cells_of(index: int) -> Float32[np.ndarray, "h w"] | None:
        return _cells(images[index].record)

    for earlier, later in _near_hashes(images):
        one, other = images[later], images[earlier]
        key = later, one.split == other.split
        if key in named:
            continue
        verified += 1
        is_checked = verified <= _MOST_VERIFIED
        if is_checked and not _look_alike(cells_of(later), cells_of(earlier)):
            continue
        named.add(key)
        text = "" if is_checked else ", by their hashes alone"
        findings += _name_pair(one, other, NEAR_IMAGE, NEAR_IMAGE_IN_SPLITS, text)
    return findings


def _near_hashes(images: list[_Copy]) -> Iterator[tuple[int, int]]:
    """Yield pairs of images, the earlier first, whose hashes differ by few of the bits that are set in either."""
    if not images:
        return
    hashes = [one.facts.dhash for one in images if one.facts is not None and one.facts.dhash is not None]
    bits = np.unpackbits(np.frombuffer(b"".join(hashes), np.uint8).reshape(len(hashes), -1), axis=1).astype(np.float32)
    counts = bits.sum(1)
    for start in range(0, len(bits), _ROWS):
        stop = min(start + _ROWS, len(bits))
        common = bits[start:stop] @ bits[:stop].T
        union = counts[start:stop, None] + counts[:stop] - common
        near = np.tril(common >= (1 - NEAR_HASHES) * union, start - 1)
        for later, earlier in np.argwhere(near).tolist():
            yield earlier, start + later


def _cells(record: Record) -> Float32[np.ndarray, "h w"] | None:
    """Average the brightness over a grid of cells; None where the image is gone since it was inspected."""
    try:
        image = Image.fromarray(record.read())
    except (OSError, ValueError):
        return None
    return np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)


def _look_alike(one: Float32[np.ndarray, "h w"] | None, other: Float32[np.ndarray, "h w"] | None) -> bool:
    """Compare two images cell by cell, after their brightness and contrast are matched."""
    if one is None or other is None:
        return False
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    if spread == 0 or float(a @ b) < _LEAST_CORRELATION * spread:
        return False
    difference = np.abs(a * np.sqrt(float(b @ b) / float(a @ a)) - b)
    return float(np.quantile(difference, 0.99)) <= _MOST_DIFFERENT
