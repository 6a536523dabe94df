"""Data sets of records whose images nobody reads: sizes and boxes alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def make_record(
    size: tuple[int, int],
    xywh: Sequence[tuple[float, float, float, float]],
    labels: Sequence[int] | None = None,
    crowd: Sequence[bool] | None = None,
    image_id: int = 1,
) -> Record:
    """One image of (height, width) with these boxes."""
    boxes = np.array(xywh, np.float64).reshape(-1, 4)
    count = len(boxes)
    return Record(
        image_id=image_id,
        path=Path(f"{image_id}.png"),
        height=size[0],
        width=size[1],
        labels=np.zeros(count, np.int64) if labels is None else np.array(labels, np.int64),
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(count, bool) if crowd is None else np.array(crowd, bool),
        annotation_ids=tuple(range(count)),
    )


def of_records(records: Sequence[Record], *class_names: str) -> DetectionData:
    """A data set of these records."""
    categories = tuple(Category(i, name) for i, name in enumerate(class_names or ("a",), start=1))
    return DetectionData(tuple(records), categories, Path("train.json"))
