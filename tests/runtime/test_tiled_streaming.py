"""Images that go through a model tile by tile: in order, each once, and what cannot be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright_runtime.detections import Detections
from boxwright_runtime.masks import decode_rle, encode_rle
from boxwright_runtime.streaming import ImageInput, PredictionStream, PreparedImage
from boxwright_runtime.tiled_streaming import TiledStream, scale_boxes
from boxwright_runtime.tiles import TileOptions
from seen_objects import coordinates, draw_objects, fill_box, rows_of, see, tile_of

SIZES = [(700, 900), (90, 120), (400, 300)]


class Seeing:
    """Makes streams that see, in each tile, the objects that are given; and counts the tiles."""

    def __init__(self, objects: Detections, batch_size: int = 4) -> None:
        self.objects, self.batch_size = objects, batch_size
        self.tiles: list[Any] = []

    def __call__(self, images: Iterable[ImageInput]) -> PredictionStream:
        return PredictionStream(
            images, self._prepare, self._predict, threshold=0.0, batch_size=self.batch_size, on_error="raise"
        )

    def _prepare(self, rgb: np.ndarray) -> PreparedImage:
        return PreparedImage(rgb.shape[:2], tile_of(rgb))

    def _predict(self, tiles: Any) -> list[Detections]:
        self.tiles += tiles
        return [see(self.objects, tile) for tile in tiles]


@pytest.fixture
def objects() -> Detections:
    return draw_objects(np.random.default_rng(3), 80, (700, 900), largest=600)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        Image.fromarray(coordinates(*size)).save(path)
    return paths


def inside(objects: Detections, size: tuple[int, int]) -> set[tuple[float, ...]]:
    from boxwright_runtime.tiles import Tile

    return rows_of(see(objects, Tile(0, 0, size[1], size[0])))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_images_come_back_whole_and_in_order(
    objects: Detections, paths: list[Path], batch_size: int, whole: bool
) -> None:
    make_stream = Seeing(objects, batch_size)
    stream = TiledStream(paths, make_stream, TileOptions(size=128, whole=whole), keep_images=True)
    results = list(stream.results())
    assert [(one.index, one.source) for one in results] == list(enumerate(paths))
    for one, size in zip(results, SIZES, strict=True):
        assert rows_of(one.detections) == inside(objects, size)
        assert one.image is not None
        assert (one.image.shape[:2], one.image_scale) == (size, 1)
    # (700, 900): 7 x 9 tiles at steps of 102; (90, 120) is one tile; (400, 300): 4 x 3.
    assert len(make_stream.tiles) == 63 + 1 + 12 + (2 if whole else 0)


def test_arrays_and_bytes_too(objects: Detections, paths: list[Path]) -> None:
    images = [coordinates(*SIZES[0]), paths[1].read_bytes(), Image.open(paths[2])]
    results = list(TiledStream(iter(images), Seeing(objects), TileOptions(size=200), threshold=0.5).results())
    assert [one.source for one in results] == [0, 1, 2]
    for one, size in zip(results, SIZES, strict=True):
        assert rows_of(one.detections) == {row for row in inside(objects, size) if row[4] >= 0.5}


def test_what_cannot_be_read_is_skipped(objects: Detections, paths: list[Path]) -> None:
    paths[1].write_bytes(b"no image")
    stream = TiledStream(paths, Seeing(objects), TileOptions(size=128), on_error="skip")
    assert [one.index for one in stream.results()] == [0, 2]
    assert [(one.index, one.path) for one in stream.skipped] == [(1, paths[1])]
    assert "1.png cannot be read as an image" in stream.skipped[0].reason


def test_an_error_comes_after_the_images_before_it(objects: Detections, paths: list[Path]) -> None:
    paths[1].unlink()
    stream = TiledStream(paths, Seeing(objects, batch_size=64), TileOptions(size=128))
    assert rows_of(next(stream)) == inside(objects, SIZES[0])
    with pytest.raises(FileNotFoundError, match="no image"):
        next(stream)


def test_images_are_read_as_they_are_needed(objects: Detections) -> None:
    taken: list[int] = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(1)
            yield coordinates(130, 200)

    stream = TiledStream(endless(), Seeing(objects), TileOptions(size=128))
    for _ in range(3):
        next(stream)
    stream.close()
    assert len(taken) <= 5
    assert next(stream, None) is None


def test_the_whole_of_a_large_file_is_scaled_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rasterio", reason="rasterio is not installed")
    from boxwright_runtime import image_windows, raster_file

    monkeypatch.setattr(image_windows, "LARGE", 100)
    monkeypatch.setattr(raster_file, "MAX_WHOLE", 300)
    size = (400, 600)
    Image.fromarray(coordinates(*size)).save(tmp_path / "large.tif")
    large = Detections(np.array([[20.0, 40, 580, 360]]), np.array([0.9]), np.array([1]), ({},))

    def prepare(rgb: np.ndarray) -> PreparedImage:
        return PreparedImage(rgb.shape[:2], rgb.shape[1::-1])

    def predict(tiles: Any) -> list[Detections]:
        # Tiles see nothing; the whole, of half the size, the object.
        runs = (encode_rle(fill_box(large.boxes[0] / 2, (200, 300))),)
        whole = Detections(large.boxes / 2, large.scores, large.labels, runs)
        return [whole if tile == (300, 200) else large[[]] for tile in tiles]

    def make_stream(images: Iterable[ImageInput]) -> PredictionStream:
        return PredictionStream(images, prepare, predict, threshold=0.0, batch_size=1, on_error="raise")

    stream = TiledStream([tmp_path / "large.tif"], make_stream, TileOptions(size=128), keep_images=True)
    (one,) = stream.results()
    assert one.detections.boxes.tolist() == large.boxes.tolist()
    assert one.detections.masks is not None
    np.testing.assert_array_equal(decode_rle(one.detections.masks[0]), fill_box(large.boxes[0], size))
    assert one.image is not None
    assert (one.image.shape, one.image_scale) == ((200, 300, 3), 0.5)


def test_boxes_are_scaled() -> None:
    detections = Detections(np.array([[10.0, 20, 30, 40]]), np.ones(1), np.zeros(1), ({},), (), np.ones((1, 4)))
    scaled = scale_boxes(detections, 0.5)
    assert (scaled.boxes.tolist(), scaled.masks) == ([[5, 10, 15, 20]], None)
    assert scaled.sides_std is not None
    assert scaled.sides_std.tolist() == [[0.5] * 4]
    assert scale_boxes(detections, 1) is detections
