"""COCO: annotations/SPLIT.json with images/SPLIT/; holds everything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from boxwright.data.findings import Finding
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.records import DetectionData, Record
from boxwright.data.writers._check import check_written, count_objects, filled_splits
from boxwright.data.writers._target import (
    BROKEN_OUTLINE,
    TargetNames,
    merged_categories,
    put_image,
    whole_folder,
)
from boxwright.structures import Category


def write(splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]:
    """Write splits as COCO files; ids, classes, crowd regions, areas and masks are those of the data.

    Args:
        splits: by name.
        folder: does not exist, or is empty.
        link: images are hard links where possible, else copies.

    Returns:
        images that got another name, splits without images, and outlines that JSON cannot hold.

    Raises:
        FileNotFoundError: an image or a mask is not there.
        ValueError: the folder is not empty or cannot be written, or cannot be read back.
    """
    findings: list[Finding] = []
    splits = filled_splits(splits, findings)
    names = TargetNames(flat=False, by_stem=False)
    with whole_folder(folder) as target:
        (target / "annotations").mkdir()
        for split, data in splits.items():
            of_split = names.of_split(split, data.records, findings)
            (target / "images" / split).mkdir(parents=True)
            for record, name in zip(data.records, of_split, strict=True):
                put_image(record, target / "images" / split / name, link=link)
            # A split without classes has no objects either; no reader accepts a file without classes.
            categories = data.categories or merged_categories(splits)
            text = json.dumps(_document(data, categories, of_split, findings), allow_nan=False)
            (target / "annotations" / f"{split}.json").write_text(text, encoding="utf-8")
        check_written(target, "coco", splits, count_objects(splits))
    return findings


def _document(
    data: DetectionData, categories: Sequence[Category], names: list[str], findings: list[Finding]
) -> dict[str, Any]:
    pairs = list(zip(data.records, names, strict=True))
    return {
        "images": [
            {"id": record.image_id, "file_name": name, "width": record.width, "height": record.height}
            for record, name in pairs
        ],
        "categories": [{"id": category.id, "name": category.name} for category in categories],
        "annotations": [entry for record, name in pairs for entry in _annotations(record, name, data, findings)],
    }


def _annotations(record: Record, name: str, data: DetectionData, findings: list[Finding]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for index, label in enumerate(record.labels.tolist()):
        entry: dict[str, Any] = {
            "id": record.annotation_ids[index],
            "image_id": record.image_id,
            "category_id": data.categories[label].id,
            "bbox": [_whole(value) for value in record.bbox_xywh[index].tolist()],
            "area": _whole(float(record.area[index])),
            "iscrowd": int(record.crowd[index]),
        }
        segmentation = run_lengths_of(record.segmentations[index]) if record.segmentations else None
        if segmentation and _is_finite(segmentation):
            entry["segmentation"] = segmentation
        elif segmentation:
            findings.append(Finding(BROKEN_OUTLINE, f"{name} (annotation {entry['id']})", "a number is not finite"))
        entries.append(entry)
    return entries


def _is_finite(segmentation: Any) -> bool:
    try:
        json.dumps(segmentation, allow_nan=False)
    except ValueError:
        return False
    return True


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
