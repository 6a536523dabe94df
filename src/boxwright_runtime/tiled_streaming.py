"""Large images on their way through a model: cut into tiles, predicted, and joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from boxwright_runtime.detections import Detections
from boxwright_runtime.image_windows import ImageWindows, open_windows
from boxwright_runtime.masks import decode_rle, encode_part
from boxwright_runtime.streaming import ImageInput, OnError, PredictionStream, SkippedImage, StreamedResult
from boxwright_runtime.structures import RLE
from boxwright_runtime.tile_joining import join_tiles
from boxwright_runtime.tiles import SmallImage, Tile, TileOptions, cut_tiles

MakeStream = Callable[[Iterable[ImageInput]], PredictionStream]
"""All detections of images, one after the other."""


@dataclass(eq=False)
class _TiledImage:
    """An image, and what has come back of its tiles.

    Args:
        index: in the input, from 0.
        source: its path, or else its index.
        size: (height, width) in pixels.
        tiles: of the image, perhaps the whole first.
        scale: of the whole, where it is among the tiles.
        kept: the image, where it is kept.
        num_given: tiles that were handed out so far.
        failed: a tile could not be read.
        detections: of the tiles that have come back.
    """

    index: int
    source: Path | int
    size: tuple[int, int]
    tiles: list[Tile]
    scale: float = 1.0
    kept: SmallImage | None = None
    num_given: int = 0
    failed: bool = False
    detections: list[Detections] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Tell whether all tiles have come back."""
        return len(self.detections) == (self.num_given if self.failed else len(self.tiles))

    def join(self, threshold: float | Sequence[float]) -> StreamedResult:
        """Join what the tiles hold."""
        if self.scale != 1:
            whole = self.detections[0]
            masks = None if whole.masks is None else tuple(_upsample_mask(mask, self.size) for mask in whole.masks)
            self.detections[0] = replace(scale_boxes(whole, 1 / self.scale), masks=masks)
        joined = join_tiles(self.tiles, self.detections, self.size).above(threshold)
        pixels, scale = (None, 1.0) if self.kept is None else self.kept
        return StreamedResult(self.index, self.source, joined, pixels, scale)


class TiledStream(Iterator[Detections]):
    """Detections of images that are predicted tile by tile, like a ``PredictionStream``.

    Args:
        images: one after the other; never collected. One of them is in memory at a time, or of a large file a tile.
        make_stream: makes a stream of the tiles, which keeps every detection.
        options: of the tiles.
        threshold: detections with a lower score are left out; one for all classes, or one for each, by its label.
        on_error: as for ``PredictionStream``.
        keep_images: hand out each image beside its detections, in ``results``; of a large file a smaller one.
    """

    def __init__(
        self,
        images: Iterable[ImageInput],
        make_stream: MakeStream,
        options: TileOptions,
        *,
        threshold: float | Sequence[float] = 0.0,
        on_error: OnError = "raise",
        keep_images: bool = False,
    ) -> None:
        self.skipped: list[SkippedImage] = []
        self._options, self._on_error, self._keep_images = options, on_error, keep_images
        self._waiting: deque[_TiledImage] = deque()
        self._failure: Exception | None = None
        self._results = self._join(make_stream(self._cut(images)), threshold)

    def __next__(self) -> Detections:
        return next(self._results).detections

    def results(self) -> Iterator[StreamedResult]:
        """Give all that is known of each image."""
        return self._results

    def close(self) -> None:
        """Leave the rest of the images; nothing is read any more once this returns."""
        self._results.close()

    def _cut(self, images: Iterable[ImageInput]) -> Generator[Any]:
        """Give the tiles of all images, one after the other."""
        for index, image in enumerate(images):
            one: _TiledImage | None = None
            try:
                with open_windows(image) as windows:
                    one = self._begin(index, image, windows)
                    self._waiting.append(one)
                    for tile in one.tiles:
                        pixels = self._read(windows, one, tile)
                        one.num_given += 1
                        yield pixels
            except (OSError, ValueError) as error:
                if one is not None:
                    one.failed = True
                if self._on_error == "raise":
                    self._failure = error
                    return
                path = Path(image) if isinstance(image, str | Path) else None
                self.skipped.append(SkippedImage(index, path, " ".join(str(error).split())))

    def _begin(self, index: int, image: ImageInput, windows: ImageWindows) -> _TiledImage:
        height, width = windows.size
        tiles = cut_tiles(height, width, self._options)
        if self._options.whole and len(tiles) > 1:
            tiles.insert(0, Tile(0, 0, width, height))
        source = Path(image) if isinstance(image, str | Path) else index
        kept = windows.read_whole() if self._keep_images else None
        return _TiledImage(index, source, (height, width), tiles, kept=kept)

    def _read(self, windows: ImageWindows, one: _TiledImage, tile: Tile) -> Any:
        if tile.size != one.size:
            return windows.read(tile)
        whole = windows.read_whole() if one.kept is None else one.kept
        one.scale = whole.scale
        return whole.pixels

    def _join(self, stream: PredictionStream, threshold: float | Sequence[float]) -> Generator[StreamedResult]:
        """Join the detections of tiles as soon as those of an image are complete."""
        with closing(stream):
            for detections in stream:
                next(one for one in self._waiting if not one.complete).detections.append(detections)
                while self._waiting and self._waiting[0].complete:
                    one = self._waiting.popleft()
                    if not one.failed:
                        yield one.join(threshold)
        if self._failure is not None:
            raise self._failure


def scale_boxes(detections: Detections, scale: float) -> Detections:
    """Scale boxes to an image of another size; their masks, which are of the old size, are left out where it differs.

    Args:
        detections: of an image.
        scale: sides of the new one by those of the old.
    """
    if scale == 1:
        return detections
    std = None if detections.sides_std is None else detections.sides_std * scale
    return replace(detections, boxes=detections.boxes * scale, sides_std=std, masks=None)


def _upsample_mask(mask: RLE, size: tuple[int, int]) -> RLE:
    """Scale a mask to an image of (height, width): each pixel is what the nearest one of the small image is."""
    small = decode_rle(mask)
    rows, columns = (
        np.clip(((np.arange(side) + 0.5) * (own / side)).astype(np.int64), 0, own - 1)
        for side, own in zip(size, small.shape, strict=True)
    )
    # Only where the object is: the image may have 400 million pixels.
    of_rows, of_columns = np.asarray(small.any(1))[rows], np.asarray(small.any(0))[columns]
    rows_of_object, columns_of_object = np.flatnonzero(of_rows), np.flatnonzero(of_columns)
    if not len(rows_of_object):
        return encode_part(small[:0, :0], (0, 0), size)
    top, left = int(rows_of_object[0]), int(columns_of_object[0])
    below, right = int(rows_of_object[-1]) + 1, int(columns_of_object[-1]) + 1
    return encode_part(small[rows[top:below, None], columns[left:right]], (top, left), size)
