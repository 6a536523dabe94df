"""Data sets of tiles: the images of a data set cut up, with what each part shows of the objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from boxwright.data.crop import Crop
from boxwright.data.mask_file import run_lengths_of
from boxwright.data.masks import render_record_masks
from boxwright.data.records import DetectionData, Record
from boxwright.ops.masks import mask_area, mask_box
from boxwright.structures import RLE
from boxwright_runtime.image_windows import ImageWindows, open_windows
from boxwright_runtime.input_format import Window
from boxwright_runtime.masks import encode_part, to_json
from boxwright_runtime.tiles import Tile, TileOptions, cut_tiles


class TiledObject(NamedTuple):
    """Part of an object that a tile shows.

    Args:
        annotation_id: in the data of the tiles.
        source_id: annotation of the object in the data set.
        visible: fraction of its area that is in the tile: of its mask, or of its box where it has none.
    """

    annotation_id: int
    source_id: int
    visible: float


@dataclass(frozen=True)
class TiledImage:
    """A tile.

    Args:
        image_id: in the data of the tiles.
        source: the image that it is of.
        tile: where it lies.
        cut: objects that are cut so far that they are crowd regions here.
    """

    image_id: int
    source: Path
    tile: Tile
    cut: tuple[TiledObject, ...]


@dataclass(frozen=True, eq=False)
class TiledData:
    """The data of tiles, and where they are from.

    Args:
        data: a record for each tile.
        images: likewise.
        never_whole: annotations of the data set that are crowd regions in every tile.
        num_empty: tiles without an object that were left out.
    """

    data: DetectionData
    images: tuple[TiledImage, ...]
    never_whole: tuple[int, ...]
    num_empty: int


class TileReader:
    """Reads tiles of images, one image open at a time; a context that closes the last one."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: tuple[Path, ImageWindows] | None = None

    def __enter__(self) -> TileReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, record: Record, tile: Tile) -> UInt8[np.ndarray, "h w 3"]:
        """Read a tile of an image.

        Raises:
            ValueError: the image cannot be read, or its size is not the one that the annotations are for.
        """
        if self._open is None or self._open[0] != record.path:
            self._stack.close()
            self._open = None
            image = record.path if record.source is None else record.read()
            windows = self._stack.enter_context(open_windows(image))
            height, width = windows.size
            if (height, width) != (record.height, record.width):
                raise ValueError(
                    f"{record.path} has {width} x {height} pixels, but its annotations are for {record.width} x "
                    f"{record.height}: restore the image, or correct its width and height in the annotation file"
                )
            self._open = record.path, windows
        return self._open[1].read(tile)


def tile_data(
    data: DetectionData, options: TileOptions, reader: TileReader, *, min_visible: float, with_empty: bool
) -> TiledData:
    """Cut the images of a data set into tiles.

    An object is in every tile that shows some of it: as an object where at least ``min_visible`` of its area is in the
    tile, and as a crowd region, which training and evaluation leave alone, where it is less.

    Args:
        data: the images and their objects.
        options: of the tiles.
        reader: reads the tiles when they are written.
        min_visible: fraction of an object's area that a tile shows at least.
        with_empty: keep tiles without an object.
    """
    records: list[Record] = []
    images: list[TiledImage] = []
    annotation_ids, num_empty = count(1), 0
    as_objects: set[int] = set()
    for source in data.records:
        parts = _Parts(source)
        for tile in cut_tiles(source.height, source.width, options):
            record, cut = parts.cut(tile, annotation_ids, min_visible)
            if not len(record.labels) and not with_empty:
                num_empty += 1
                continue
            name = source.path.with_name(f"{source.path.stem}_{tile.left}_{tile.top}.png")
            image_id = len(records) + 1
            record = replace(record, image_id=image_id, path=name, source=partial(reader.read, source, tile))
            as_objects.update(parts.shown_as_objects)
            records.append(record)
            images.append(TiledImage(image_id, source.path, tile, cut))
    expected = [
        identity
        for record in data.records
        for identity, crowd in zip(record.annotation_ids, record.crowd.tolist(), strict=True)
        if not crowd
    ]
    never_whole = tuple(identity for identity in expected if identity not in as_objects)
    return TiledData(replace(data, records=tuple(records), facts=()), tuple(images), never_whole, num_empty)


class _Parts:
    """Cuts the objects of one image."""

    def __init__(self, record: Record) -> None:
        self.record, self.boxes = record, record.boxes().astype(np.float64)
        self.exact = np.concatenate((record.bbox_xywh[:, :2], record.bbox_xywh[:, :2] + record.bbox_xywh[:, 2:]), 1)
        self._masks: dict[int, _Mask] = {}
        self.shown_as_objects: list[int] = []

    def cut(
        self, tile: Tile, annotation_ids: Iterator[int], min_visible: float
    ) -> tuple[Record, tuple[TiledObject, ...]]:
        """Return the record of a tile, and the objects that are cut too far."""
        source, corner = self.record, np.array((tile.left, tile.top))
        low, high = np.maximum(self.boxes[:, :2], tile[:2]), np.minimum(self.boxes[:, 2:], tile[2:])
        shown = [self._show(i, tile, low[i], high[i]) for i in np.flatnonzero((high > low).all(1)).tolist()]
        parts = [one for one in shown if one is not None]
        indices = [one.row for one in parts]
        is_cut = np.array([one.visible < min_visible for one in parts], dtype=np.bool_)
        ids = tuple(next(annotation_ids) for _ in parts)
        crowd = source.crowd[indices]
        objects = [i for i, cut in zip(indices, (is_cut | crowd).tolist(), strict=True) if not cut]
        self.shown_as_objects = [source.annotation_ids[i] for i in objects]
        listed = tuple(
            TiledObject(identity, source.annotation_ids[one.row], round(one.visible, 4))
            for identity, one, cut in zip(ids, parts, (is_cut & ~crowd).tolist(), strict=True)
            if cut
        )
        boxes = np.array([one.box for one in parts], dtype=np.float64).reshape(-1, 4)
        boxes[:, :2] -= corner
        height, width = tile.size
        record = replace(
            source,
            height=height,
            width=width,
            labels=source.labels[indices],
            bbox_xywh=boxes,
            area=np.array([one.area for one in parts], dtype=np.float64),
            crowd=crowd | is_cut,
            annotation_ids=ids,
            segmentations=tuple(one.mask for one in parts) if source.segmentations else (),
        )
        return record, listed

    def _show(
        self, index: int, tile: Tile, low: Float64[np.ndarray, " 2"], high: Float64[np.ndarray, " 2"]
    ) -> _Part | None:
        """Tell what a tile shows of an object; None where its mask has no pixel there."""
        record, box = self.record, self.boxes[index]
        whole = bool((low == box[:2]).all() and (high == box[2:]).all())
        area = float(record.area[index])
        if not (record.segmentations and record.segmentations[index]):
            part = (high - low).prod() / (box[2:] - box[:2]).prod()
            corners = self.exact[index] if whole else np.concatenate((low, high))
            return _Part(index, _to_xywh(corners), float(part), area * float(part), None)
        mask = self._cut_mask(index, tile)
        pixels = mask_area(mask)
        if not pixels:
            return None
        visible = pixels / max(int(self._masks[index].pixels.sum()), 1)
        corners = self.exact[index]
        if not whole:
            tight = np.array(mask_box(mask), dtype=np.float64) + (tile.left, tile.top) * 2
            corners = np.concatenate((np.maximum(low, tight[:2]), np.minimum(high, tight[2:])))
        return _Part(index, _to_xywh(corners), 1.0 if whole else visible, area * visible, to_json(mask))

    def _cut_mask(self, index: int, tile: Tile) -> RLE:
        """Return what a tile has of an object's mask."""
        if index not in self._masks:
            self._masks[index] = _render_mask(self.record, index)
        mask = self._masks[index]
        height, width = mask.pixels.shape
        left, top = max(tile.left, mask.left), max(tile.top, mask.top)
        right, bottom = min(tile.right, mask.left + width), min(tile.bottom, mask.top + height)
        if right <= left or bottom <= top:
            return encode_part(np.zeros((0, 0), dtype=np.bool_), (0, 0), tile.size)
        part = mask.pixels[top - mask.top : bottom - mask.top, left - mask.left : right - mask.left]
        return encode_part(part, (top - tile.top, left - tile.left), tile.size)


class _Mask(NamedTuple):
    """The mask of an object in the part of its image that has all of it."""

    left: int
    top: int
    pixels: Bool[np.ndarray, "h w"]


def _render_mask(record: Record, index: int) -> _Mask:
    """Render a mask where it lies, in pixels of the image; there, and not tile by tile, it is exact."""
    segmentation = run_lengths_of(record.segmentations[index])
    if isinstance(segmentation, list):
        x, y = (np.concatenate([polygon[axis::2] for polygon in segmentation]) for axis in (0, 1))
        extent = (x.min(), y.min(), x.max(), y.max())
    else:
        extent = mask_box(segmentation)
    left, top = (max(0, int(np.floor(side)) - 1) for side in extent[:2])
    right = min(record.width, int(np.ceil(extent[2])) + 1)
    bottom = min(record.height, int(np.ceil(extent[3])) + 1)
    crop = Crop(Window(left, top, right, bottom), (bottom - top, right - left))
    return _Mask(left, top, render_record_masks(record, [index], crop)[0].numpy())


class _Part(NamedTuple):
    """Part of an object that a tile shows, with its box (x, y, width, height) in pixels of the image."""

    row: int
    box: Float64[np.ndarray, " 4"]
    visible: float
    area: float
    mask: RLE | None


def _to_xywh(corners: Float64[np.ndarray, " 4"]) -> Float64[np.ndarray, " 4"]:
    return np.concatenate((corners[:2], corners[2:] - corners[:2]))
