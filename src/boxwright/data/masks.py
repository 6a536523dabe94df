"""The masks of an image's objects, as a view of the image shows them; and whether a data set has them."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from boxwright.data.input_format import Window
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.records import DetectionData, Record
from boxwright.data.transforms.augment import View
from boxwright.ops.masks import decode_mask, mask_box, rasterize, run_lengths
from boxwright.structures import RLE

FARTHEST = 10
"""Where polygons may have points, in sides of the image from its own: a slip of the pen, not of the unit."""


class _BrokenError(ValueError):
    """What is wrong with one segmentation; the caller adds whose it is."""


class _Tile(NamedTuple):
    """The part of a canvas that has all of an object; nothing is mirrored yet."""

    mask: Bool[Tensor, "rows columns"]
    top: int
    left: int


class _Grid(NamedTuple):
    """The pixel of an image under the center of every row and column of a canvas, also outside the image."""

    rows: Int64[np.ndarray, " height"]
    columns: Int64[np.ndarray, " width"]

    @classmethod
    def of(cls, view: View) -> _Grid:
        x1, y1, x2, y2 = view.window
        height, width = view.canvas
        rows = y1 + (np.arange(height) + 0.5) * ((y2 - y1) / height)
        columns = x1 + (np.arange(width) + 0.5) * ((x2 - x1) / width)
        return cls(np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64))

    def part(self, x1: int, y1: int, x2: int, y2: int) -> tuple[int, int, int, int]:
        """The corners, on the canvas, of what it shows of a part of the image."""
        left, right = np.searchsorted(self.columns, (x1, x2)).tolist()
        top, bottom = np.searchsorted(self.rows, (y1, y2)).tolist()
        return left, top, right, bottom


_NO_TILE = _Tile(torch.zeros(0, 0, dtype=torch.bool), 0, 0)


def render_record_masks(record: Record, chosen: Sequence[int], view: View) -> Bool[Tensor, "n h w"]:
    """Masks of some of an image's objects on the canvas of a view.

    Polygons are moved with the view and rasterized on the canvas: they lose nothing. Of run lengths, a pixel of the
    canvas shows the pixel of the image in which its center lies. Mirroring mirrors the mask. There is no object
    outside of the image.

    Args:
        record: the image and its objects.
        chosen: which objects, by their places in the record.
        view: what the canvas shows.

    Raises:
        FileNotFoundError: a mask is in a file that is not there.
        ValueError: one of them has no segmentation, or its file cannot be used.
    """
    given = record.segmentations or (None,) * len(record.labels)
    for place in chosen:
        if not given[place]:
            raise ValueError(f"{_name(record, place)} has no segmentation, and no mask can be made of it")
    height, width = view.canvas
    grid = _Grid.of(view)
    masks = torch.zeros(len(chosen), height, width, dtype=torch.bool)
    # Object by object: most are much smaller than the canvas, and all the rest of it need not be touched.
    for mask, place in zip(masks, chosen, strict=True):
        segmentation: Any = run_lengths_of(given[place])
        polygons = isinstance(segmentation, list)
        tile, top, left = (
            _polygon_tile(segmentation, record, view, grid) if polygons else _sampled_tile(segmentation, grid)
        )
        own_height, own_width = tile.shape
        axes = [axis for axis, flipped in ((0, view.flip_y), (1, view.flip_x)) if flipped]
        top = height - top - own_height if view.flip_y else top
        left = width - left - own_width if view.flip_x else left
        mask[top : top + own_height, left : left + own_width] = tile.flip(axes) if axes else tile
    return masks


def decode_image_masks(record: Record) -> Bool[Tensor, "n h w"]:
    """Masks of all objects of an image, in its own pixels; empty ones where the file has none."""
    masks = torch.zeros(len(record.labels), record.height, record.width, dtype=torch.bool)
    for place, segmentation in enumerate(record.segmentations):
        if segmentation:
            masks[place] = decode_image_mask(record, place)
    return masks


def decode_image_mask(record: Record, place: int) -> Bool[Tensor, "h w"]:
    """The mask of one object of an image that has one, in the image's own pixels.

    Args:
        record: the image and its objects.
        place: of the object in the record.
    """
    whole = View(Window.whole(record.height, record.width), (record.height, record.width))
    return render_record_masks(record, [place], whole)[0]


def check_masks(data: DetectionData, *, crowds: bool = False) -> None:
    """Make sure that every object has a mask that can be used; those in files are read, once and for all.

    Args:
        data: what a detector with masks is trained on, or measured on.
        crowds: also the crowd regions, which are measured with, but not trained on.

    Raises:
        ValueError: segmentations are missing or broken; names the file and the first culprit.
    """
    missing, first, total = 0, "", 0
    for record in data.records:
        given = record.segmentations or (None,) * len(record.labels)
        for place, segmentation in enumerate(given):
            if record.crowd[place] and not crowds:
                continue
            total += 1
            if not segmentation:
                missing, first = missing + 1, first or _name(record, place)
                continue
            try:
                _check(segmentation, record, record.bbox_xywh[place].tolist())
            except _BrokenError as error:
                raise ValueError(
                    f"{data.source}: {_name(record, place)}: {error}; correct it or delete the annotation"
                ) from None
    if missing:
        raise ValueError(
            f"{data.source}: {missing:,} of {total:,} annotations have no segmentation, and this detector needs masks "
            f"(the first is {first}); complete the file, or take a detector of boxes alone, as faster_rcnn"
        )


def _name(record: Record, place: int) -> str:
    return f"annotation {record.annotation_ids[place]} of image {record.path.name!r}"


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
            if type(value) not in (int, float) or not math.isfinite(value):
                raise _BrokenError(f"a polygon has finite numbers, not {reprlib.repr(value)}")
            if not -FARTHEST * side <= value <= (FARTHEST + 1) * side:
                raise _BrokenError(
                    f"a polygon has a point at {'xy'[axis]} = {value:g}, far outside of its image of "
                    f"{record.width} x {record.height} pixels"
                )


def _check_where(polygons: list[list[int | float]], record: Record, bbox: list[float]) -> None:
    """By the boxes around the polygons: nothing is rasterized, and those smaller than a pixel are no exception."""
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


def _polygon_tile(polygons: list[Any], record: Record, view: View, grid: _Grid) -> _Tile:
    x1, y1, x2, y2 = view.window
    height, width = view.canvas
    scale = np.array([width / (x2 - x1), height / (y2 - y1)])
    parts = [(np.array(polygon).reshape(-1, 2) - (x1, y1)) * scale for polygon in polygons]
    points = np.concatenate(parts)
    low, high = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
    left, top, right, bottom = grid.part(0, 0, record.width, record.height)
    left, top = max(left, int(low[0])), max(top, int(low[1]))
    right, bottom = min(right, int(high[0])), min(bottom, int(high[1]))
    if top >= bottom or left >= right:
        return _NO_TILE
    # On the whole canvas: moved to the tile, points between two pixels would be rounded to the other one.
    whole = decode_mask(rasterize([part.ravel().tolist() for part in parts], height, width))
    return _Tile(whole[top:bottom, left:right], top, left)


def _sampled_tile(rle: RLE, grid: _Grid) -> _Tile:
    left, top, right, bottom = grid.part(*mask_box(rle))
    if top >= bottom or left >= right:
        return _NO_TILE
    rows, columns = torch.from_numpy(grid.rows[top:bottom]), torch.from_numpy(grid.columns[left:right])
    return _Tile(decode_mask(rle)[rows[:, None], columns], top, left)
