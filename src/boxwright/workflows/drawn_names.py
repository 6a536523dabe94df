"""A note on classes whose names the drawings of a page cannot have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from boxwright.drawing import describe_missing_glyphs
from boxwright.reports.page_images import ReportImage
from boxwright.structures import Category
from boxwright.workflows.observer import Observer
from boxwright_runtime.arrays import to_numpy


def note_undrawable_names(categories: Sequence[Category], labels: Iterable[int], observer: Observer) -> None:
    """Note names that are drawn as numbers, as no font of this machine has their glyphs.

    Args:
        categories: label ``i`` is ``categories[i]``.
        labels: of classes that are drawn.
        observer: hears the note.
    """
    note = describe_missing_glyphs(categories, set(labels))
    if note is not None:
        observer.note(note)


def drawn_labels(images: Sequence[ReportImage]) -> set[int]:
    """Return the labels of objects and detections of images."""
    parts = [labels for one in images for labels in (one.record.labels, to_numpy(one.detections.labels))]
    return set(np.concatenate([np.zeros(0, dtype=np.int64), *parts]).tolist())
