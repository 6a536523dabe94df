"""Folds of a data set, for predictions of each image by a model that has not seen it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int64

from boxwright.data.records import DetectionData, Record


def deal_folds(data: DetectionData, folds: int, *, seed: int = 0) -> list[list[int]]:
    """Deal the images of a split into folds of about equal size, which share the objects of each class evenly.

    Images whose files have the same bytes stay in one fold. The rarest class is dealt first, each of its images into
    the fold that has fewest of its objects, and of these into the one that has fewest images.

    Args:
        data: the split.
        folds: their number, at least 2.
        seed: of the order among like images.

    Returns:
        for each fold the indices of its records, in the order of the data set.

    Raises:
        ValueError: there are fewer different images than folds, or fewer than 2 folds.

    Source: iterative stratification of Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data
    (2011), with whole groups of images.
    """
    groups = group_equal_files(data.records)
    if not 2 <= folds <= len(groups):
        raise ValueError(
            f"{data.source}: {folds} folds of {len(groups)} different images; folds are at least 2, and each has at "
            "least one image"
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    shuffled = [groups[i] for i in order]
    counts = np.stack([_count_objects(data, group) for group in shuffled])
    waiting = np.ones(len(shuffled), dtype=np.bool_)
    dealt: list[list[int]] = [[] for _ in range(folds)]
    objects = np.zeros((folds, counts.shape[1]), dtype=np.int64)
    while waiting.any():
        left = counts[waiting].sum(0)
        present = np.flatnonzero(left)
        rarest = int(present[left[present].argmin()]) if present.size else None
        chosen = waiting if rarest is None else waiting & (counts[:, rarest] > 0)
        for group in np.flatnonzero(chosen).tolist():
            fold = min(range(folds), key=lambda k: (0 if rarest is None else objects[k, rarest], len(dealt[k]), k))
            dealt[fold] += shuffled[group]
            objects[fold] += counts[group]
        waiting &= ~chosen
    return [sorted(fold) for fold in dealt]


def select_records(data: DetectionData, indices: Sequence[int]) -> DetectionData:
    """Return a data set of some of the images, each of which counts in full."""
    return replace(data.select(np.array(indices, np.int64)), notes=(), findings=(), pseudo=None)


def group_equal_files(records: Sequence[Record]) -> list[list[int]]:
    """Group the indices of records whose files have the same bytes, in the order of their first ones.

    Only files of equal length are read, and images that are in no file where others have their size.
    """
    by_length: dict[object, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        by_length[_length(record)].append(index)
    groups: dict[object, list[int]] = defaultdict(list)
    for length, indices in by_length.items():
        for index in indices:
            groups[_content(records[index]) if len(indices) > 1 else length].append(index)
    return sorted(groups.values())


def _length(record: Record) -> object:
    return record.path.stat().st_size if record.source is None else (record.height, record.width)


def _content(record: Record) -> object:
    if record.source is not None:
        return hashlib.blake2b(record.read().tobytes()).hexdigest(), record.height, record.width
    with record.path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _count_objects(data: DetectionData, indices: Sequence[int]) -> Int64[np.ndarray, " k"]:
    labels = np.concatenate([data.records[i].labels for i in indices])
    return np.bincount(labels, minlength=len(data.categories)).astype(np.int64)
