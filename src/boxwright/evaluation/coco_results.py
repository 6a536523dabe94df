"""Detections in COCO's results form: written one image after the other, read and checked whole."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from jaxtyping import Float64, Int64

from boxwright.data.records import DetectionData
from boxwright.evaluation.coco_evaluator import IoUType, Results, image_numbers
from boxwright_runtime.detections import Detections
from boxwright_runtime.masks import decode_rle, run_lengths, to_json
from boxwright_runtime.structures import RLE


class ResultsWriter:
    """Writer of a results file.

    Args:
        file: open for text; closing it is the caller's.
        category_ids: of each label.
    """

    def __init__(self, file: IO[str], category_ids: list[int]) -> None:
        self._file, self._category_ids, self._separator = file, category_ids, "[\n"

    def write(self, image_id: int, detections: Detections, file_name: str | None = None) -> None:
        """Write the detections of an image, best first.

        Args:
            image_id: of the image in the annotation file.
            detections: with labels that ``category_ids`` has.
            file_name: also in each row, where there is no annotation file to find it in.
        """
        for one in detections:
            x1, y1, x2, y2 = one.box
            row: dict[str, Any] = {"image_id": image_id, "category_id": self._category_ids[one.label]}
            row |= {} if file_name is None else {"file_name": file_name}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": one.score}
            row |= {} if one.mask is None else {"segmentation": to_json(one.mask)}
            self._file.write(self._separator + json.dumps(row))
            self._separator = ",\n"

    def finish(self) -> None:
        """Write the end of the list."""
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")


def write_results(path: Path, detections: Mapping[int, Detections], category_ids: list[int]) -> None:
    """Write a whole results file; see ``ResultsWriter``."""
    with path.open("w", encoding="utf-8") as file:
        writer = ResultsWriter(file, category_ids)
        for image_id, one in detections.items():
            writer.write(image_id, one)
        writer.finish()


@dataclass(frozen=True, eq=False)
class CocoResults:
    """Rows of a results file, in its order.

    Args:
        path: of the file.
        image_ids: of each row, as in the annotation file.
        labels: of each row, as in the data.
        scores: of each row.
        bbox_xywh: left, top, width and height of each row, in pixels; the smallest box around the mask where the file
            has no boxes.
        masks: run lengths of each row; None where the file has none.
        has_boxes: the file has boxes.
    """

    path: Path
    image_ids: tuple[int, ...]
    labels: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]
    bbox_xywh: Float64[np.ndarray, "n 4"]
    masks: tuple[RLE, ...] | None
    has_boxes: bool

    def for_evaluator(self, data: DetectionData, iou_type: IoUType) -> Results:
        """Return the rows as ``run_evaluator`` takes them, with exactly the file's numbers.

        A mask's row keeps its box, whose area then stands for the mask's, as in pycocotools.
        """
        numbers = image_numbers(data)
        images = np.array([numbers[image_id] for image_id in self.image_ids], dtype=np.float64)
        if iou_type == "bbox":
            columns = (images[:, None], self.bbox_xywh, self.scores[:, None], self.labels[:, None])
            return np.concatenate(columns, axis=1, dtype=np.float64)
        assert self.masks is not None
        rows = []
        for index, (number, label, score) in enumerate(zip(images, self.labels, self.scores, strict=True)):
            box = {"bbox": self.bbox_xywh[index].tolist()} if self.has_boxes else {}
            ids = {"image_id": int(number), "category_id": int(label)}
            rows.append({**ids, **box, "score": float(score), "segmentation": self.masks[index]})
        return rows

    def detections(self, data: DetectionData) -> dict[int, Detections]:
        """Return the detections by image id, best first, none of those that the file says nothing of."""
        rows: dict[int, list[int]] = {}
        for row, image_id in enumerate(self.image_ids):
            rows.setdefault(image_id, []).append(row)
        boxes = self.bbox_xywh.copy()
        boxes[:, 2:] += boxes[:, :2]
        by_image = {}
        for image_id, own in rows.items():
            index = np.array(own)[np.argsort(-self.scores[own], kind="stable")]
            by_image[image_id] = Detections(
                torch.from_numpy(boxes[index]),
                torch.from_numpy(self.scores[index]),
                torch.from_numpy(self.labels[index]),
                None if self.masks is None else tuple(self.masks[row] for row in index),
                data.categories,
            )
        return by_image


def read_results(path: Path, data: DetectionData) -> CocoResults:
    """Read a results file of any project, and check it against the annotations.

    Args:
        path: JSON: a list of rows with image_id, category_id, score, and bbox ([left, top, width, height]) or
            segmentation (run lengths), or both.
        data: the images and categories that the ids are of.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file, or a row is not right; names the first one.
    """
    rows = _load(path)
    labels = {id_: label for label, id_ in enumerate(data.category_ids())}
    sizes = {record.image_id: (record.height, record.width) for record in data.records}
    first: Mapping[str, Any] = rows[0] if rows and isinstance(rows[0], dict) else {}
    has_boxes, has_masks = "bbox" in first or not first, "segmentation" in first
    masks: list[RLE] = []
    boxes = np.zeros((len(rows), 4))
    for number, row in enumerate(rows, 1):
        try:
            _check_row(row, labels, sizes)
            if has_masks:
                masks.append(_read_mask(row.get("segmentation"), sizes[row["image_id"]]))
            boxes[number - 1] = _read_box(row.get("bbox")) if has_boxes else _box_of(masks[-1])
        except _BrokenRowError as error:
            raise ValueError(f"{path}: row {number:,} of {len(rows):,}: {error}") from None
    return CocoResults(
        path=path,
        image_ids=tuple(row["image_id"] for row in rows),
        labels=np.array([labels[row["category_id"]] for row in rows], dtype=np.int64),
        scores=np.array([row["score"] for row in rows], dtype=np.float64),
        bbox_xywh=boxes,
        masks=tuple(masks) if has_masks else None,
        has_boxes=has_boxes,
    )


class _BrokenRowError(ValueError):
    """Fault of one row; the caller adds the file and its number."""


def _load(path: Path) -> list[Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: {'a folder, not' if path.is_dir() else 'no such'} results file")
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if isinstance(rows, list):
        return rows
    what = f"an object with {', '.join(map(repr, list(rows)[:3]))}" if isinstance(rows, dict) else type(rows).__name__
    raise ValueError(
        f"{path} is not in COCO's results form, a list of rows with image_id, category_id, bbox and score: it holds "
        f"{what}"
    )


def _check_row(row: Any, labels: Mapping[int, int], sizes: Mapping[int, Any]) -> None:
    if not isinstance(row, dict):
        raise _BrokenRowError(f"{_short(row)} is no object with image_id, category_id, bbox and score")
    for key, known, what in (("image_id", sizes, "image"), ("category_id", labels, "category")):
        value = row.get(key)
        if type(value) is not int:
            raise _BrokenRowError(f"{key} is {_short(value)}, not a whole number" if key in row else f"no {key}")
        if value not in known:
            raise _BrokenRowError(f"{key} {value}: the annotations have no such {what}")
    score = row.get("score")
    if not _is_number(score):
        raise _BrokenRowError(f"score is {_short(score)}, not a finite number" if "score" in row else "no score")


def _read_box(value: Any) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise _BrokenRowError(f"bbox is {_short(value)}, not [left, top, width, height] in finite numbers")
    if value[2] < 0 or value[3] < 0:
        raise _BrokenRowError(f"bbox {_short(value)} has a negative width or height; it is [left, top, width, height]")
    return [float(one) for one in value]


def _read_mask(value: Any, size: tuple[int, int]) -> RLE:
    if not isinstance(value, dict) or not isinstance(value.get("counts"), str | list):
        raise _BrokenRowError(f"segmentation is {_short(value)}, not run lengths with size and counts")
    if value.get("size") != list(size):
        raise _BrokenRowError(f"segmentation has the size {_short(value.get('size'))}, and its image {list(size)}")
    counts = value["counts"]
    try:
        runs = counts if isinstance(counts, list) else run_lengths(counts)
    except ValueError as error:
        raise _BrokenRowError(f"segmentation: {error}") from None
    if not all(type(run) is int and run >= 0 for run in runs) or sum(runs) != math.prod(size):
        raise _BrokenRowError("segmentation: its run lengths do not add up to its size")
    return {"size": list(size), "counts": counts}


def _box_of(mask: RLE) -> list[float]:
    """Return the smallest box around a mask; zeros around none."""
    pixels = decode_rle(mask)
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    if not len(rows):
        return [0.0] * 4
    left, top = columns[0], rows[0]
    return [float(side) for side in (left, top, columns[-1] - left + 1, rows[-1] - top + 1)]


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
