"""Faults of whole data sets: boxes of other images, and classes of other objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from boxwright.data.records import DetectionData, Record


def exchange_objects(data: DetectionData) -> DetectionData:
    """Give each image the objects of the next one, at the same positions relative to its size."""
    others = (*data.records[1:], data.records[0])
    return replace(data, records=tuple(_with_objects(*pair) for pair in zip(data.records, others, strict=True)))


def exchange_classes(data: DetectionData) -> DetectionData:
    """Exchange the classes of all objects at random; boxes stay."""
    counts = [len(record.labels) for record in data.records]
    labels = np.random.default_rng(0).permutation(np.concatenate([record.labels for record in data.records]))
    parts = np.split(labels, np.cumsum(counts)[:-1])
    records = (replace(record, labels=part) for record, part in zip(data.records, parts, strict=True))
    return replace(data, records=tuple(records))


def _with_objects(record: Record, other: Record) -> Record:
    boxes = other.bbox_xywh * np.array([record.width / other.width, record.height / other.height] * 2)
    return replace(
        record,
        labels=other.labels,
        bbox_xywh=boxes,
        area=boxes[:, 2] * boxes[:, 3],
        crowd=other.crowd,
        annotation_ids=other.annotation_ids,
        segmentations=(),
    )
