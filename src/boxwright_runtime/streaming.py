"""Images on their way through a model: read, batched by equal size, predicted, and put back in order."""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from boxwright_runtime.arrays import is_tensor
from boxwright_runtime.detections import Detections
from boxwright_runtime.image_file import SUFFIXES, describe_error
from boxwright_runtime.image_folder import list_folder
from boxwright_runtime.images import ImageLike, as_rgb, decode_rgb
from boxwright_runtime.read_ahead import map_ahead, plan_read_ahead
from boxwright_runtime.stored_image import StoredImage

if TYPE_CHECKING:
    from jaxtyping import UInt8

ImageInput = ImageLike | bytes | bytearray | memoryview | io.IOBase
"""One image: a path, the bytes of a file or an open one, a PIL image, an array (h, w, 3) or a tensor (3, h, w); or a
``StoredImage``."""

OnError = Literal["raise", "skip"]

MAX_WAITING = 8
"""Batches that may be read while an image waits for others of its size; so much is held in memory at most."""


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
    """An image in the form in which a model takes it.

    Args:
        shape: images of equal shape may share a batch.
        content: whatever the model takes.
    """

    shape: tuple[int, ...]
    content: Any


@dataclass(frozen=True, eq=False)
class StreamedResult:
    """Detections of one image of a stream.

    Args:
        index: in the input, from 0.
        source: its path, or else its index.
        detections: in pixels of the image, best first.
        image: as it was read, where it is kept.
        image_scale: sides of ``image`` by those of the image that the detections are in; below 1 of a large file.
    """

    index: int
    source: Path | int
    detections: Detections
    image: UInt8[np.ndarray, "h w 3"] | None = None
    image_scale: float = 1.0


Threshold = float | Literal["tuned"]
"""Least score of detections: one for all classes, or those of the classes that were tuned."""

NOT_TUNED = "were not tuned: `boxwright tune-thresholds` does it"

Prepare = Callable[["UInt8[np.ndarray, 'h w 3']"], PreparedImage]
"""From an RGB image to what the model takes of it."""

PredictPrepared = Callable[[Sequence[Any]], list[Detections]]
"""Detections of the contents of prepared images of equal shape, on the CPU."""


def list_sources(images: ImageInput | Iterable[ImageInput]) -> tuple[Iterable[ImageInput], bool]:
    """Tell one image from several.

    Args:
        images: as ``Detector.predict`` and ``Runtime.predict`` take them.

    Returns:
        the images, and whether it was one by itself.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: no image, and nothing that gives images.
    """
    if isinstance(images, str | Path):
        path = Path(images)
        return (list_image_files(path), False) if path.is_dir() else ([path], True)
    if (isinstance(images, np.ndarray) or is_tensor(images)) and images.ndim == 4:
        return iter(images), False
    one = bytes | bytearray | memoryview | io.IOBase | Image.Image | np.ndarray | StoredImage
    if isinstance(images, one) or is_tensor(images):
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

    Files and bytes in a sequence are decoded ahead, a few at a time, in threads that end with the stream;
    ``close`` ends it early. ``items`` gives pairs of path (index in the input, where an image has no path) and
    detections instead.

    Args:
        images: one after the other; never collected.
        prepare: from RGB to what the model takes.
        predict: detections of what was prepared.
        threshold: detections with a lower score are left out; one for all classes, or one for each, by its label.
        batch_size: images that go through the model together, at most.
        on_error: ``raise`` at an image that cannot be read, once all before it are given; or ``skip`` it, which
            ``skipped`` reports; of an endless stream, empty that list from time to time.
        keep_images: hand out each image beside its detections, in ``results``.
    """

    def __init__(
        self,
        images: Iterable[ImageInput],
        prepare: Prepare,
        predict: PredictPrepared,
        *,
        threshold: float | Sequence[float],
        batch_size: int,
        on_error: OnError,
        keep_images: bool = False,
    ) -> None:
        least = [threshold] if isinstance(threshold, int | float) else threshold
        if isinstance(threshold, str) or not all(0 <= one <= 1 for one in least) or batch_size < 1:
            raise ValueError(f"threshold is in [0, 1] and batch_size at least 1, not {threshold} and {batch_size}")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        gaps = _Gaps([], set())
        self.skipped = gaps.skipped
        ahead = plan_read_ahead(len(images) if isinstance(images, Sequence) else None, batch_size)
        read = map_ahead(_Reader(prepare, keep_images), images, ahead, in_thread=_is_encoded)
        batches = _batch(read, batch_size, gaps if on_error == "skip" else None)
        # Nothing of this refers to the stream: whoever drops it ends the threads.
        self._results = _in_order(batches, predict, threshold, gaps)

    def __next__(self) -> Detections:
        return next(self._results).detections

    def items(self) -> Iterator[tuple[Path | int, Detections]]:
        """Give pairs of path and detections; of an image without a path, its index in the input."""
        return ((one.source, one.detections) for one in self._results)

    def results(self) -> Iterator[StreamedResult]:
        """Give all that is known of each image."""
        return self._results

    def close(self) -> None:
        """Leave the rest of the images; nothing is read any more once this returns."""
        self._results.close()


class _Gaps(NamedTuple):
    """Images that were skipped, and the indices of those that results have not passed yet."""

    skipped: list[SkippedImage]
    indices: set[int]

    def add(self, image: SkippedImage) -> None:
        self.skipped.append(image)
        self.indices.add(image.index)


def _in_order(
    batches: Generator[list[_ReadImage] | Exception],
    predict: PredictPrepared,
    threshold: float | Sequence[float],
    gaps: _Gaps,
) -> Generator[StreamedResult]:
    waiting: dict[int, StreamedResult] = {}
    following = 0
    with closing(batches):
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            predicted = predict([one.prepared.content for one in batch])
            for one, detections in zip(batch, predicted, strict=True):
                kept = detections.above(threshold)
                waiting[one.index] = StreamedResult(one.index, one.source, kept, one.image)
            for index in range(following, max(waiting) + 1):
                if index in waiting:
                    yield waiting.pop(index)
                elif index in gaps.indices:
                    gaps.indices.remove(index)
                else:
                    break
                following = index + 1


@dataclass(frozen=True, eq=False)
class _ReadImage:
    """An image that waits for its batch; ``image`` is as it was read, where it is kept."""

    index: int
    source: Path | int
    prepared: PreparedImage
    image: UInt8[np.ndarray, "h w 3"] | None


def _batch(
    images: Generator[tuple[ImageInput, Callable[[], _ReadImage]]], batch_size: int, gaps: _Gaps | None
) -> Generator[list[_ReadImage] | Exception]:
    """Make batches of equal shape: full, but for the last of each shape and those that have waited for long.

    An image that cannot be read becomes one of ``gaps``; where that is None, the error comes last.
    """
    waiting: dict[tuple[int, ...], list[_ReadImage]] = defaultdict(list)
    failure = None
    with closing(images):
        for index, (image, read) in enumerate(images):
            try:
                one = read()
            except (OSError, ValueError) as error:
                if gaps is None:
                    failure = error
                    break
                path = Path(image) if isinstance(image, str | Path) else None
                gaps.add(SkippedImage(index, path, " ".join(str(error).split())))
            else:
                shape = one.prepared.shape
                waiting[shape].append(one)
                if len(waiting[shape]) == batch_size:
                    yield waiting.pop(shape)
            # The first of these began first: a shape that is alone must not hold the results of all others back.
            oldest = next(iter(waiting), None)
            if oldest is not None and index - waiting[oldest][0].index >= MAX_WAITING * batch_size:
                yield waiting.pop(oldest)
    yield from list(waiting.values())
    if failure is not None:
        yield failure


def _is_encoded(image: ImageInput) -> bool:
    """Tell whether decoding it concerns nothing that others may use at once, such as an open file."""
    return isinstance(image, str | Path | bytes | StoredImage)


@dataclass(frozen=True)
class _Reader:
    prepare: Prepare
    keep_images: bool

    def __call__(self, index: int, image: Any) -> _ReadImage:
        """Read and prepare an image."""
        is_path = isinstance(image, str | Path)
        rgb = as_rgb(image) if is_path or isinstance(image, StoredImage) else _read_in_memory(index, image)
        source = Path(image) if is_path else index
        return _ReadImage(index, source, self.prepare(rgb), rgb if self.keep_images else None)


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
