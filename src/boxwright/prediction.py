"""Images on their way through a detector: read, batched by equal input size, predicted, and put back in order."""

from __future__ import annotations

import io
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn

from boxwright.data.images import resample
from boxwright.structures import ImageSize
from boxwright_runtime.detections import Detections
from boxwright_runtime.image_file import SUFFIXES, describe_error
from boxwright_runtime.image_folder import list_folder
from boxwright_runtime.images import ImageLike, as_rgb, decode_rgb
from boxwright_runtime.input_format import InputFormat

ImageInput = ImageLike | bytes | bytearray | memoryview | io.IOBase
"""One image: a path, the bytes of a file or an open one, a PIL image, an array (h, w, 3) or a tensor (3, h, w)."""

OnError = Literal["raise", "skip"]

MAX_WAITING = 8
"""Batches that may be read while an image waits for others of its input size; so much is held in memory at most."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read.

    Args:
        index: in the input, from 0.
        path: of the image, where it has one.
        reason: of the failure, in one line.
    """

    index: int
    path: Path | None
    reason: str


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """An image that was read and resized.

    Args:
        index: in the input, from 0.
        source: its path, or else its index.
        pixels: the network input, not yet normalized.
        size: before and after it was resized.
        image: as it was read, where it is kept.
    """

    index: int
    source: Path | int
    pixels: UInt8[Tensor, "3 height width"] | Float32[Tensor, "3 height width"]
    size: ImageSize
    image: UInt8[np.ndarray, "h w 3"] | None = None


@dataclass(frozen=True, eq=False)
class StreamedResult:
    """Detections of one image of a stream.

    Args:
        index: in the input, from 0.
        source: its path, or else its index.
        detections: in pixels of the image, best first.
        image: as it was read, where it is kept.
    """

    index: int
    source: Path | int
    detections: Detections
    image: UInt8[np.ndarray, "h w 3"] | None = None


InputPixels = UInt8[Tensor, "b 3 h w"] | Float32[Tensor, "b 3 h w"]
"""Images of equal input size before they are normalized: bytes, or floats in [0, 255]."""

PredictBatch = Callable[[InputPixels, Sequence[ImageSize]], list[Detections]]
"""Detections of images of equal input size, on the CPU."""


def list_sources(images: ImageInput | Iterable[ImageInput]) -> tuple[Iterable[ImageInput], bool]:
    """Tell one image from several.

    Args:
        images: as ``Detector.predict`` takes them.

    Returns:
        the images, and whether it was one by itself.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no image, and nothing that gives images.
    """
    if isinstance(images, str | Path):
        path = Path(images)
        return (list_image_files(path), False) if path.is_dir() else ([path], True)
    if isinstance(images, np.ndarray | Tensor) and images.ndim == 4:
        return iter(images), False
    if isinstance(images, bytes | bytearray | memoryview | io.IOBase | Image.Image | np.ndarray | Tensor):
        return [images], True
    if not isinstance(images, Iterable):
        raise ValueError(
            "images are paths, bytes of files, PIL images, arrays or tensors, or several of them, "
            f"not {type(images).__name__}"
        )
    return cast(Iterable[ImageInput], images), False


def list_image_files(folder: Path, note: Callable[[str], None] = warnings.warn) -> list[Path]:
    """List the images in a folder and in all below it, sorted.

    Args:
        folder: the folder.
        note: takes a line that counts the files that are no images, where there are any.

    Raises:
        ValueError: there is none.
    """
    listing = list_folder(folder)
    others = listing.describe_others()
    if not listing.images:
        left_out = f"; {others}" if others else ""
        raise ValueError(f"{folder}: no images in this folder ({', '.join(sorted(SUFFIXES))}){left_out}")
    if others:
        note(f"{folder}: {others}")
    return listing.images


class PredictionStream(Iterator[Detections]):
    """Detections of images, one image at a time and in the order of the input, which is read as far as is needed.

    ``items`` gives pairs of path (index in the input, where an image has no path) and detections instead.

    Args:
        images: one after the other; never collected.
        predict_batch: detections of images of equal input size.
        input_format: sizes of the network input.
        threshold: detections with a lower score are left out.
        batch_size: images that go through the network together, at most.
        on_error: ``raise`` at an image that cannot be read, once all before it are given; or ``skip`` it, which
            ``skipped`` reports; of an endless stream, empty that list from time to time.
        keep_images: hand out each image beside its detections, in ``results``.
    """

    def __init__(
        self,
        images: Iterable[ImageInput],
        predict_batch: PredictBatch,
        input_format: InputFormat,
        *,
        threshold: float,
        batch_size: int,
        on_error: OnError,
        keep_images: bool = False,
    ) -> None:
        if not 0 <= threshold <= 1 or batch_size < 1:
            raise ValueError(f"threshold is in [0, 1] and batch_size at least 1, not {threshold} and {batch_size}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        self.skipped: list[SkippedImage] = []
        self._gaps: set[int] = set()
        self._predict_batch, self._threshold = predict_batch, threshold
        read = _Reader(input_format, keep_images)
        self._batches = _prepare(images, read, batch_size, self._skip if on_error == "skip" else None)
        self._results = self._in_order()

    def __next__(self) -> Detections:
        return next(self._results).detections

    def items(self) -> Iterator[tuple[Path | int, Detections]]:
        """Give pairs of path and detections; of an image without a path, its index in the input."""
        return ((one.source, one.detections) for one in self._results)

    def results(self) -> Iterator[StreamedResult]:
        """Give all that is known of each image."""
        return self._results

    def _skip(self, image: SkippedImage) -> None:
        self.skipped.append(image)
        self._gaps.add(image.index)

    def _in_order(self) -> Iterator[StreamedResult]:
        waiting: dict[int, StreamedResult] = {}
        following = 0
        for batch in self._batches:
            if isinstance(batch, Exception):
                raise batch
            pixels = torch.stack([one.pixels for one in batch])
            predicted = self._predict_batch(pixels, [one.size for one in batch])
            for one, detections in zip(batch, predicted, strict=True):
                kept = detections[detections.scores >= self._threshold]
                waiting[one.index] = StreamedResult(one.index, one.source, kept, one.image)
            for index in range(following, max(waiting) + 1):
                if index in waiting:
                    yield waiting.pop(index)
                elif index in self._gaps:
                    self._gaps.remove(index)
                else:
                    break
                following = index + 1


def _prepare(
    images: Iterable[ImageInput], read: _Reader, batch_size: int, skip: Callable[[SkippedImage], None] | None
) -> Iterator[list[PreparedImage] | Exception]:
    """Batches of equal input size: full, but for the last of each size and those that have waited for long.

    An image that cannot be read is given to ``skip``; where that is None, the error comes last.
    """
    waiting: dict[tuple[int, int], list[PreparedImage]] = defaultdict(list)
    failure = None
    for index, image in enumerate(images):
        try:
            prepared = read(index, image)
        except (OSError, ValueError) as error:
            if skip is None:
                failure = error
                break
            path = Path(image) if isinstance(image, str | Path) else None
            skip(SkippedImage(index, path, " ".join(str(error).split())))
        else:
            shape = prepared.size.input_height, prepared.size.input_width
            waiting[shape].append(prepared)
            if len(waiting[shape]) == batch_size:
                yield waiting.pop(shape)
        # The first of these began first: a size that is alone must not hold the results of all others back.
        oldest = next(iter(waiting), None)
        if oldest is not None and index - waiting[oldest][0].index >= MAX_WAITING * batch_size:
            yield waiting.pop(oldest)
    yield from list(waiting.values())
    if failure is not None:
        yield failure


@dataclass(frozen=True)
class _Reader:
    input_format: InputFormat
    keep_images: bool

    def __call__(self, index: int, image: Any) -> PreparedImage:
        """Read and resize an image."""
        is_path = isinstance(image, str | Path)
        rgb = as_rgb(image) if is_path else _read_in_memory(index, image)
        height, width = rgb.shape[:2]
        shape = self.input_format.input_size(height, width)
        window, resampling = self.input_format.window(height, width), self.input_format.resampling
        pixels = resample(rgb, window, *shape, resampling=resampling)
        size = ImageSize(height, width, *shape)
        return PreparedImage(index, Path(image) if is_path else index, pixels, size, rgb if self.keep_images else None)


def _read_in_memory(index: int, image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image that has no name; errors say which one it is."""
    try:
        if isinstance(image, bytes | bytearray | memoryview | io.IOBase):
            return decode_rgb(cast(IO[bytes], image).read() if isinstance(image, io.IOBase) else bytes(image))
        return as_rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"image {index}: these bytes are no image file, or a damaged one") from error
    except Exception as error:  # on damaged files, Pillow's decoders raise errors of any kind
        raise ValueError(f"image {index}: {describe_error(error)}") from error


_MODES_LOCK = threading.Lock()

_SWITCHED: dict[int, int] = {}
"""Modules in training that are in evaluation for now, by ``id``, and how many predictions need it."""


@contextmanager
def evaluation_mode(*modules: nn.Module) -> Iterator[None]:
    """Switch modules to evaluation, and each of them and of their children back to its own mode at the end.

    Module by module: frozen parts of a detector in training are in evaluation mode already, and stay so. Threads may
    share modules: the last of them to leave switches back.
    """
    switched: list[nn.Module] = []
    try:
        with _MODES_LOCK:
            for module in dict.fromkeys(module for one in modules for module in one.modules()):
                if not module.training and id(module) not in _SWITCHED:
                    continue
                _SWITCHED[id(module)] = _SWITCHED.get(id(module), 0) + 1
                switched.append(module)
                module.training = False
        yield
    finally:
        with _MODES_LOCK:
            for module in switched:
                _SWITCHED[id(module)] -= 1
                if not _SWITCHED[id(module)]:
                    del _SWITCHED[id(module)]
                    module.training = True
