"""Images with the objects of several records, and with some of their objects only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from boxwright.data.records import DetectionData, Record


def join_objects(one: Record, other: Record) -> Record:
    """Return a record with its own objects and, after them, those of another one of the same image."""
    if not len(other.labels):
        return one
    return replace(
        one,
        labels=np.concatenate((one.labels, other.labels)),
        bbox_xywh=np.concatenate((one.bbox_xywh, other.bbox_xywh)),
        area=np.concatenate((one.area, other.area)),
        crowd=np.concatenate((one.crowd, other.crowd)),
        annotation_ids=(*one.annotation_ids, *other.annotation_ids),
        segmentations=_join_segmentations(one, other),
    )


def select_objects(record: Record, rows: Sequence[int]) -> Record:
    """Return a record with some of its objects, by their indices."""
    rows = list(rows)
    return replace(
        record,
        labels=record.labels[rows],
        bbox_xywh=record.bbox_xywh[rows],
        area=record.area[rows],
        crowd=record.crowd[rows],
        annotation_ids=tuple(record.annotation_ids[row] for row in rows),
        segmentations=tuple(record.segmentations[row] for row in rows) if record.segmentations else (),
    )


def restore_dropped(data: DetectionData) -> DetectionData:
    """Return a split with the objects that were dropped on reading, behind the others of their images."""
    if not data.dropped:
        return data
    dropped = {record.image_id: record for record in data.dropped}
    return replace(data, records=tuple(_restore(record, dropped) for record in data.records), dropped=())


def restore_objects(record: Record, data: DetectionData) -> Record:
    """Return an image of a split with its objects that were dropped on reading, behind the others."""
    return _restore(record, {one.image_id: one for one in data.dropped if one.image_id == record.image_id})


def _restore(record: Record, dropped: Mapping[int, Record]) -> Record:
    own = dropped.get(record.image_id)
    return record if own is None else join_objects(record, own)


def _join_segmentations(one: Record, other: Record) -> Sequence[Any]:
    if not (one.segmentations or other.segmentations):
        return ()
    return tuple(
        segmentation
        for record in (one, other)
        for segmentation in (record.segmentations or (None,) * len(record.labels))
    )
