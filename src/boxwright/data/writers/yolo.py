"""YOLO: data.yaml, images/SPLIT/ and labels/SPLIT/; holds boxes or outlines, no crowd regions and no ids of objects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.records import DetectionData, Record
from boxwright.data.writers._check import check_written, count_objects, filled_splits
from boxwright.data.writers._target import (
    MASKS_LEFT_OUT,
    TargetNames,
    class_names,
    lost_areas,
    lost_ids,
    merged_categories,
    put_image,
    sound_polygons,
    whole_folder,
)

CROWD_LEFT_OUT = FindingKind("crowd_left_out", "warning", "crowd regions left out, which YOLO files cannot mark")
CLIPPED = FindingKind("clipped_to_image", "note", "boxes and outlines clipped to their image")
JOINED_PARTS = FindingKind("joined_parts", "note", "outlines of several parts joined to one by lines without width")
BOX_AS_OUTLINE = FindingKind(
    "box_as_outline", "note", "boxes among outlines, written as outlines of four corners: a file holds one kind"
)
BOX_OF_OUTLINE = FindingKind(
    "box_of_outline", "note", "boxes that differ from the bounds of their outline by more than a pixel, not written"
)


def write(splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]:
    """Write splits as YOLO files.

    An image of which an object has polygons gets outlines only: programs that read a file as outlines read a box in it
    as two points. The ids of classes are in data.yaml as ``category_ids``, which other programs pass over.

    Args:
        splits: by name.
        folder: does not exist, or is empty.
        link: images are hard links where possible, else copies.

    Returns:
        what the format does not hold.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: the folder is not empty or cannot be written, or files of this format do not hold the data.
    """
    findings: list[Finding] = []
    splits = filled_splits(splits, findings)
    names = TargetNames(flat=False, by_stem=True)
    categories = merged_categories(splits)
    classes = class_names(splits, findings)
    numbers = {category.name: number for number, category in enumerate(categories)}
    with whole_folder(folder) as target:
        for split, data in splits.items():
            (target / "images" / split).mkdir(parents=True)
            (target / "labels" / split).mkdir(parents=True)
            of_label = [numbers[category.name] for category in data.categories]
            for record, name in zip(data.records, names.of_split(split, data.records, findings), strict=True):
                put_image(record, target / "images" / split / name, link=link)
                labels = target / "labels" / split / PurePosixPath(name).with_suffix(".txt")
                labels.parent.mkdir(parents=True, exist_ok=True)
                labels.write_text("".join(_lines(record, of_label, f"{split}/{name}", findings)), encoding="utf-8")
        document: dict[str, Any] = {split: f"images/{split}" for split in splits}
        document["names"] = dict(enumerate(classes.values()))
        if [category.id for category in categories] != list(range(len(categories))):
            document["category_ids"] = [category.id for category in categories]
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        (target / "data.yaml").write_text(text, encoding="utf-8")
        check_written(target, "yolo", splits, count_objects(splits, crowds=False))
    return [*findings, *lost_ids(splits, has_category_ids=True), *lost_areas(splits)]


def _lines(record: Record, of_label: list[int], name: str, findings: list[Finding]) -> list[str]:
    """Return the lines of an image's objects."""
    size = np.array([record.width, record.height], dtype=np.float64)
    names = [f"{name} (annotation {one})" for one in record.annotation_ids]
    polygons = [
        [] if record.crowd[index] else _polygons(sound_polygons(record, index, where, findings))
        for index, where in enumerate(names)
    ]
    has_outlines = any(polygons)
    lines = []
    for index, label in enumerate(record.labels.tolist()):
        where = names[index]
        if record.crowd[index]:
            findings.append(Finding(CROWD_LEFT_OUT, where))
            continue
        if record.segmentations and record.segmentations[index] and not isinstance(record.segmentations[index], list):
            findings.append(Finding(MASKS_LEFT_OUT, where, "run lengths"))
        left_top = record.bbox_xywh[index, :2]
        points = np.stack([left_top, left_top + record.bbox_xywh[index, 2:]])
        if has_outlines:
            points = _outline(polygons[index], points, where, findings)
        inside = points.clip(0, size)
        if (inside != points).any():
            findings.append(Finding(CLIPPED, where))
        fractions = inside / size
        if not has_outlines:
            fractions = np.stack([fractions.sum(0) / 2, fractions[1] - fractions[0]])
        lines.append(" ".join([str(of_label[label]), *map(_number, fractions.ravel().tolist())]) + "\n")
    return lines


def _number(value: float) -> str:
    """Return all digits of a number, never as a power of ten."""
    text = repr(value)
    return f"{value:.20f}".rstrip("0") if "e" in text else text


def _polygons(segmentation: Any) -> list[npt.NDArray[np.float64]]:
    return [np.array(part, dtype=np.float64).reshape(-1, 2) for part in segmentation or ()]


def _outline(
    parts: list[npt.NDArray[np.float64]], corners: npt.NDArray[np.float64], where: str, findings: list[Finding]
) -> npt.NDArray[np.float64]:
    """Return one outline: that of the polygons, or of the box where there is none."""
    if not parts:
        findings.append(Finding(BOX_AS_OUTLINE, where))
        (x1, y1), (x2, y2) = corners
        return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
    points = np.concatenate(parts)
    if np.abs(np.stack([points.min(0), points.max(0)]) - corners).max() > 1:
        findings.append(Finding(BOX_OF_OUTLINE, where))
    if len(parts) == 1:
        return parts[0]
    findings.append(Finding(JOINED_PARTS, where, f"{len(parts)} parts"))
    # From the first point of the first part to each other part, around it, and back the same way: no area is added.
    # All go round in one direction, so that programs that add up signed areas get the sum.
    first, *others = (part[::-1] if _signed_area(part) < 0 else part for part in parts)
    start = first[:1]
    return np.concatenate([first, start, *(one for part in others for one in (part, part[:1], start))])


def _signed_area(points: npt.NDArray[np.float64]) -> float:
    x, y = points.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
