"""Data sets of tiles: every object where it is, none lost or doubled, cut ones as crowd regions and listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.data.masks import decode_image_masks
from boxwright.data.records import DetectionData, Record
from boxwright.data.tiling import TiledData, TileReader, tile_data
from boxwright.structures import Category
from boxwright_runtime import Detections
from boxwright_runtime.tile_joining import join_tiles
from boxwright_runtime.tiles import Tile, TileOptions
from seen_objects import coordinates, draw_objects, tile_of

SIZE = (500, 700)


def make_record(boxes: Any, labels: Any, **fields: Any) -> Record:
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    given = {
        "image_id": 9,
        "path": Path("folder/photo.jpg"),
        "height": SIZE[0],
        "width": SIZE[1],
        "labels": np.asarray(labels, dtype=np.int64),
        "bbox_xywh": np.concatenate((boxes[:, :2], sides), 1),
        "area": sides.prod(1),
        "crowd": np.zeros(len(boxes), dtype=np.bool_),
        "annotation_ids": tuple(range(100, 100 + len(boxes))),
        "source": lambda: coordinates(*SIZE),
    }
    return Record(**{**given, **fields})


def cut(record: Record, size: int = 128, overlap: float = 0.2, **options: Any) -> TiledData:
    categories = tuple(Category(i, str(i)) for i in range(6))
    data = DetectionData((record,), categories, Path("x.json"))
    given = {"min_visible": 0.5, "with_empty": True, **options}
    return tile_data(data, TileOptions(size=size, overlap=overlap), TileReader(), **given)


@pytest.mark.parametrize("overlap", [0.0, 0.2])
def test_tiled_and_joined_every_object_is_what_it_was(overlap: float) -> None:
    objects = draw_objects(np.random.default_rng(5), 150, SIZE, largest=400)
    record = make_record(objects.boxes, objects.labels)
    tiled = cut(record, overlap=overlap)
    source_of = {image.image_id: image.tile for image in tiled.images}
    seen = [
        Detections(one.boxes().astype(np.float64), np.ones(len(one.labels)), one.labels) for one in tiled.data.records
    ]
    joined = join_tiles([source_of[one.image_id] for one in tiled.data.records], seen, SIZE)
    distances = np.abs(joined.boxes[:, None] - record.boxes()).max(2)
    assert distances.min(1).max() < 1e-3
    assert sorted(distances.argmin(1)) == list(range(len(objects)))
    assert (joined.labels == objects.labels[distances.argmin(1)]).all()
    assert len(joined) == len(objects)


def test_each_tile_has_its_pixels() -> None:
    tiled = cut(make_record([], []))
    assert [one.path.name for one in tiled.data.records][:2] == ["photo_0_0.png", "photo_95_0.png"]
    for record, image in zip(tiled.data.records, tiled.images, strict=True):
        assert tile_of(record.read()) == image.tile
        assert (record.height, record.width) == image.tile.size


def test_what_is_cut_too_far_is_a_crowd_region_and_listed() -> None:
    # One and a half of it are in the first tile of 100; a third in the second, without overlap.
    record = make_record([(10, 10, 50, 50), (40, 60, 160, 80), (90, 10, 130, 50)], [0, 1, 2])
    tiled = cut(record, size=100, overlap=0.0)
    first, second = tiled.data.records[:2]
    assert first.bbox_xywh.tolist() == [[10, 10, 40, 40], [40, 60, 60, 20], [90, 10, 10, 40]]
    assert (first.labels.tolist(), first.crowd.tolist()) == ([0, 1, 2], [False, False, True])
    assert first.area.tolist() == [1600, 1200, 400]
    assert [(one.annotation_id, one.source_id, one.visible) for one in tiled.images[0].cut] == [(3, 102, 0.25)]
    assert second.bbox_xywh.tolist() == [[0, 60, 60, 20], [0, 10, 30, 40]]
    assert second.crowd.tolist() == [False, False]
    assert second.annotation_ids == (4, 5)
    assert tiled.never_whole == ()
    assert cut(record, size=100, overlap=0.0, min_visible=0.6).never_whole == (101,)


def test_crowd_regions_stay_so_and_are_not_listed() -> None:
    record = make_record([(90, 10, 130, 50)], [2], crowd=np.array([True]))
    tiled = cut(record, size=100, overlap=0.0)
    assert [one.crowd.tolist() for one in tiled.data.records[:2]] == [[True], [True]]
    assert tiled.images[0].cut == ()
    assert tiled.never_whole == ()


def test_empty_tiles() -> None:
    record = make_record([(10, 10, 50, 50)], [0])
    everything, filled = cut(record, size=100), cut(record, size=100, with_empty=False)
    assert len(filled.images) == 1
    assert filled.num_empty == len(everything.images) - 1 == 6 * 9 - 1


def test_masks_are_cut_where_the_image_is() -> None:
    outline = [20.0, 20, 180, 30, 150, 160, 60, 120]
    record = make_record([(20, 20, 180, 160)], [1], segmentations=([outline],))
    (whole,) = decode_image_masks(record).numpy()
    tiled = cut(record, size=96, overlap=0.25, min_visible=0.0)
    shown = 0
    for one, image in zip(tiled.data.records, tiled.images, strict=True):
        part = whole[image.tile.top : image.tile.bottom, image.tile.left : image.tile.right]
        assert len(one.labels) == int(part.any())
        if part.any():
            shown += 1
            np.testing.assert_array_equal(decode_image_masks(one).numpy()[0], part)
            y, x = np.nonzero(part)
            left, top, width, height = one.bbox_xywh[0]
            assert (left >= x.min() and left + width <= x.max() + 1) or image.tile.size == SIZE
            assert top >= y.min()
            assert top + height <= y.max() + 1
            assert one.area[0] == pytest.approx(record.area[0] * part.sum() / whole.sum())
    assert shown > 3


def test_images_of_another_size_are_refused() -> None:
    record = make_record([], [], height=501)
    tiled = cut(record)
    with pytest.raises(ValueError, match="700 x 500 pixels, but its annotations are for 700 x 501"):
        tiled.data.records[0].read()


def test_the_reader_keeps_one_image_open() -> None:
    reads: list[int] = []

    def read() -> np.ndarray:
        reads.append(1)
        return coordinates(*SIZE)

    with TileReader() as reader:
        record = make_record([], [], source=read)
        for left in (0, 100, 200):
            assert tile_of(reader.read(record, Tile(left, 0, left + 50, 50))).left == left
    assert len(reads) == 1
