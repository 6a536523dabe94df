"""Masks of an image's objects, rendered for a crop of the image, and checks of a data set's masks."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from boxwright.data.crop import Crop
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.records import DetectionData, Record
from boxwright.ops.masks import decode_mask, mask_box, rasterize
from boxwright.structures import RLE
from boxwright_runtime.input_format import Window
from boxwright_runtime.masks import run_lengths

FARTHEST = 10
"""Limit to the points of polygons, in sides of the image beyond its own: more is a mistake of the unit."""


class _BrokenError(ValueError):
    """The fault of one segmentation; the caller adds the object."""


class _Tile(NamedTuple):
    """The part of a network input that has all of an object, before mirroring."""

    mask: Bool[Tensor, "rows columns"]
    top: int
    left: int


class _Grid(NamedTuple):
    """The pixel of an image under the center of each row and column of a network input, also outside the image."""

    rows: Int64[np.ndarray, " height"]
    columns: Int64[np.ndarray, " width"]

    @classmethod
    def of(cls, crop: Crop) -> _Grid:
        x1, y1, x2, y2 = crop.window
        height, width = crop.input_size
        rows = y1 + (np.arange(height) + 0.5) * ((y2 - y1) / height)
        columns = x1 + (np.arange(width) + 0.5) * ((x2 - x1) / width)
        return cls(np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64))

    def part(self, x1: int, y1: int, x2: int, y2: int) -> tuple[int, int, int, int]:
        """Return the corners, in pixels of the network input, of a part of the image."""
        left, right = np.searchsorted(self.columns, (x1, x2)).tolist()
        top, bottom = np.searchsorted(self.rows, (y1, y2)).tolist()
        return left, top, right, bottom


_NO_TILE = _Tile(torch.zeros(0, 0, dtype=torch.bool), 0, 0)


def render_record_masks(record: Record, indices: Sequence[int], crop: Crop) -> Bool[Tensor, "n h w"]:
    """Render masks of some of an image's objects for a crop.

    Polygons are moved with the crop and rasterized at the input size: they lose nothing. Of run lengths, a pixel of
    the network input shows the pixel of the image in which its center lies. Mirroring mirrors the mask. There is no
    object outside of the image.

    Args:
        record: the image and its objects.
        indices: of the objects in the record.
        crop: the part of the image, and its size.

    Raises:
        FileNotFoundError: a mask is in a file that is not there.
        ValueError: one of them has no segmentation, or its file cannot be read.
    """
    segmentations = record.segmentations or (None,) * len(record.labels)
    for index in indices:
        if not segmentations[index]:
            raise ValueError(f"{_name(record, index)} has no segmentation, and no mask can be made of it")
    height, width = crop.input_size
    grid = _Grid.of(crop)
    masks = torch.zeros(len(indices), height, width, dtype=torch.bool)
    # Object by object: most are much smaller than the input, and all the rest of it need not be touched.
    for mask, index in zip(masks, indices, strict=True):
        segmentation: Any = run_lengths_of(segmentations[index])
        polygons = isinstance(segmentation, list)
        tile, top, left = (
            _polygon_tile(segmentation, record, crop, grid) if polygons else _sampled_tile(segmentation, grid)
        )
        own_height, own_width = tile.shape
        axes = [axis for axis, flipped in ((0, crop.flip_y), (1, crop.flip_x)) if flipped]
        top = height - top - own_height if crop.flip_y else top
        left = width - left - own_width if crop.flip_x else left
        mask[top : top + own_height, left : left + own_width] = tile.flip(axes) if axes else tile
    return masks


def render_mask_arrays(masks: Bool[np.ndarray, "n h w"], crop: Crop) -> Bool[Tensor, "n height width"]:
    """Render masks in pixels of the image for a crop, as ``render_record_masks`` renders run lengths."""
    height, width = masks.shape[1:]
    rendered = torch.from_numpy(masks)
    if crop.window != Window.whole(height, width) or crop.input_size != (height, width):
        grid = _Grid.of(crop)
        rows, columns = grid.rows.clip(0, height - 1), grid.columns.clip(0, width - 1)
        inside = (rows == grid.rows)[:, None] & (columns == grid.columns)
        rendered = torch.from_numpy(masks[:, rows[:, None], columns] & inside)
    axes = [axis for axis, flipped in ((1, crop.flip_y), (2, crop.flip_x)) if flipped]
    return rendered.flip(axes) if axes else rendered


def decode_image_masks(record: Record) -> Bool[Tensor, "n h w"]:
    """Return masks of all objects of an image, in its own pixels; empty ones where the file has none."""
    masks = torch.zeros(len(record.labels), record.height, record.width, dtype=torch.bool)
    for index, segmentation in enumerate(record.segmentations):
        if segmentation:
            masks[index] = decode_image_mask(record, index)
    return masks


def decode_image_mask(record: Record, index: int) -> Bool[Tensor, "h w"]:
    """Return the mask of one object of an image that has one, in the image's own pixels.

    Args:
        record: the image and its objects.
        index: of the object in the record.
    """
    whole = Crop(Window.whole(record.height, record.width), (record.height, record.width))
    return render_record_masks(record, [index], whole)[0]


def check_masks(data: DetectionData, *, crowds: bool = False) -> None:
    """Check that every object has a valid mask; those in files are read, once and for all.

    Args:
        data: images that a detector with masks is trained on, or measured on.
        crowds: also the crowd regions, which are measured with, but not trained on.

    Raises:
        ValueError: segmentations are missing or broken; names the file and the first culprit.
    """
    missing, first, total = 0, "", 0
    for record in data.records:
        segmentations = record.segmentations or (None,) * len(record.labels)
        for index, segmentation in enumerate(segmentations):
            if record.crowd[index] and not crowds:
                continue
            total += 1
            if not segmentation:
                missing, first = missing + 1, first or _name(record, index)
                continue
            try:
                _check(segmentation, record, record.bbox_xywh[index].tolist())
            except _BrokenError as error:
                raise ValueError(
                    f"{data.source}: {_name(record, index)}: {error}; correct it or delete the annotation"
                ) from None
    if missing:
        raise ValueError(
            f"{data.source}: {missing:,} of {total:,} annotations have no segmentation, and this detector needs masks "
            f"(the first is {first}); complete the file, or take a detector of boxes alone, as faster_rcnn"
        )


def mask_fault(record: Record, index: int) -> str | None:
    """Describe the fault of an object's mask, None where it has none; one in a file is read."""
    try:
        _check(record.segmentations[index], record, record.bbox_xywh[index].tolist())
    except _BrokenError as error:
        return str(error)
    return None


def _name(record: Record, index: int) -> str:
    return f"annotation {record.annotation_ids[index]} of image {record.path.name!r}"


def _check(segmentation: Any, record: Record, bbox: list[float]) -> None:
    if isinstance(segmentation, list):
        # One that is smaller than a pixel is no mistake: in large images of many objects there are such.
        for part in segmentation:
            _check_polygon(part, record)
        _check_where(segmentation, record, bbox)
        return
    try:
        rle = run_lengths_of(segmentation)
    except (FileNotFoundError, ValueError) as error:
        raise _BrokenError(str(error)) from None
    _check_run_lengths(rle, record)
    if not any(mask_box(rle)):
        raise _BrokenError("its segmentation has no pixel in the image")


def _check_polygon(part: Any, record: Record) -> None:
    if not (isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0):
        counted = f"{len(part)} of them" if isinstance(part, list) else reprlib.repr(part)
        raise _BrokenError(f"a polygon is a list of at least six numbers x, y, x, y ..., an even number; not {counted}")
    for axis, side in enumerate((record.width, record.height)):
        for value in part[axis::2]:
            # By comparison, because a whole number may be too large for math.isfinite.
            if type(value) not in (int, float) or not -sys.float_info.max <= value <= sys.float_info.max:
                raise _BrokenError(f"a polygon has finite numbers, not {reprlib.repr(value)}")
            if not -FARTHEST * side <= value <= (FARTHEST + 1) * side:
                raise _BrokenError(
                    f"a polygon has a point at {'xy'[axis]} = {value:g}, far outside of its image of "
                    f"{record.width} x {record.height} pixels"
                )


def _check_where(polygons: list[list[int | float]], record: Record, bbox: list[float]) -> None:
    """Check positions by the boxes around the polygons; nothing is rasterized, so they may be smaller than a pixel."""
    boxes = [(min(part[0::2]), min(part[1::2]), max(part[0::2]), max(part[1::2])) for part in polygons]
    if not any(x2 >= 0 and y2 >= 0 and x1 < record.width and y1 < record.height for x1, y1, x2, y2 in boxes):
        raise _BrokenError(
            "its segmentation has no pixel in the image: its polygons lie outside of the "
            f"{record.width} x {record.height} pixels"
        )
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    x1, y1, x2, y2 = min(lefts), min(tops), max(rights), max(bottoms)
    left, top, width, height = bbox
    # A pixel apart is no mistake: boxes may be rounded.
    if max(left - x2, top - y2, x1 - left - width, y1 - top - height) > 1:
        raise _BrokenError(
            f"its segmentation and its bbox do not meet: polygons from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}), "
            f"[left, top, width, height] [{left:g}, {top:g}, {width:g}, {height:g}]"
        )


def _check_run_lengths(segmentation: Any, record: Record) -> None:
    size = [record.height, record.width]
    counts = segmentation.get("counts")
    if not isinstance(counts, str | list):
        raise _BrokenError(f"run lengths have 'counts', a text or a list of numbers, not {reprlib.repr(counts)}")
    if segmentation.get("size") != size:
        raise _BrokenError(
            f"run lengths of size {reprlib.repr(segmentation.get('size'))} do not fit the image's "
            f"[height, width] {size}"
        )
    if not all(type(side) is int for side in segmentation["size"]):  # 60.0 equals 60, but is nothing to decode with
        raise _BrokenError(f"the size of run lengths is whole numbers, not {reprlib.repr(segmentation['size'])}")
    try:
        runs = counts if isinstance(counts, list) else run_lengths(counts)
    except ValueError as error:
        raise _BrokenError(f"its counts cannot be read: {error}") from None
    for run in runs:
        if type(run) is not int or run < 0:
            raise _BrokenError(f"run lengths are whole numbers, none of them negative; not {reprlib.repr(run)}")
    if sum(runs) != record.height * record.width:
        raise _BrokenError(
            f"its counts add up to {sum(runs):,}, not to the {record.height * record.width:,} pixels of the image"
        )


def _polygon_tile(polygons: list[Any], record: Record, crop: Crop, grid: _Grid) -> _Tile:
    x1, y1, x2, y2 = crop.window
    height, width = crop.input_size
    scale = np.array([width / (x2 - x1), height / (y2 - y1)])
    parts = [(np.array(polygon).reshape(-1, 2) - (x1, y1)) * scale for polygon in polygons]
    points = np.concatenate(parts)
    low, high = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
    left, top, right, bottom = grid.part(0, 0, record.width, record.height)
    left, top = max(left, int(low[0])), max(top, int(low[1]))
    right, bottom = min(right, int(high[0])), min(bottom, int(high[1]))
    if top >= bottom or left >= right:
        return _NO_TILE
    # At the whole input size: moved to the tile, points between two pixels would be rounded to the other one.
    whole = decode_mask(rasterize([part.ravel().tolist() for part in parts], height, width))
    return _Tile(whole[top:bottom, left:right], top, left)


def _sampled_tile(rle: RLE, grid: _Grid) -> _Tile:
    left, top, right, bottom = grid.part(*mask_box(rle))
    if top >= bottom or left >= right:
        return _NO_TILE
    rows, columns = torch.from_numpy(grid.rows[top:bottom]), torch.from_numpy(grid.columns[left:right])
    return _Tile(decode_mask(rle)[rows[:, None], columns], top, left)
