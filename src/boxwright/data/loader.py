"""From records to batches: decoding, augmenting and collating, in this process or in workers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from boxwright.data.augment import Augmentation, View
from boxwright.data.canvases import equal_canvases
from boxwright.data.images import InputFormat, Window, normalise, read_image
from boxwright.data.records import DetectionData, Record
from boxwright.data.sampler import BatchSampler, SampleKey, augmentation_rng
from boxwright.structures import Batch, ImageSize, Targets


class Sample(NamedTuple):
    """One picture on its canvas; ``boxes`` are corners in pixels of the canvas."""

    image: UInt8[Tensor, "3 height width"]
    labels: Int64[Tensor, " n"]
    boxes: Float32[Tensor, "n 4"]
    size: ImageSize
    image_id: int


class Failure(NamedTuple):
    """Why a sample could not be made; travels from a worker in its place."""

    message: str


class PictureCache:
    """Decoded pictures, kept until a budget is spent; each process has its own.

    Args:
        limit_bytes: the budget; 0 keeps nothing.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._pictures: dict[int, UInt8[np.ndarray, "h w 3"]] = {}

    def read(self, index: int, record: Record) -> UInt8[np.ndarray, "h w 3"]:
        """The picture of a record; must not be written to."""
        picture = self._pictures.get(index)
        if picture is None:
            picture = read_record(record)
            if self.used_bytes + picture.nbytes <= self.limit_bytes:
                self._pictures[index] = picture
                self.used_bytes += picture.nbytes
        return picture

    def __getstate__(self) -> dict[str, Any]:
        """A worker that is sent this cache starts an empty one."""
        return {"limit_bytes": self.limit_bytes, "used_bytes": 0, "_pictures": {}}


class TrainSet(Dataset[Sample]):
    """Augmented samples; each depends on the seed and its key alone.

    Crowd regions are no objects to train on and are left out. Pictures without objects are samples like all
    others.

    Args:
        data: the pictures.
        augmentation: what may happen to them.
        input_format: how canvases follow from pictures and the image size of a key.
        seed: of the run.
        cache_bytes: memory for decoded pictures, in bytes, in each process.
    """

    def __init__(
        self,
        data: DetectionData,
        *,
        augmentation: Augmentation,
        input_format: InputFormat,
        seed: int,
        cache_bytes: int = 0,
    ) -> None:
        self.data = data
        self.augmentation = augmentation
        self.input_format = input_format
        self.seed = seed
        self._cache = PictureCache(cache_bytes)

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, key: SampleKey) -> Sample:
        record = self.data.records[key.record]
        picture = self._cache.read(key.record, record)
        single = ~record.crowd
        sizing, rng = self.input_format.sizing(key.image_size), augmentation_rng(self.seed, key)
        image, boxes, kept = self.augmentation(picture, record.boxes()[single], sizing, rng, light=key.light)
        return _sample(record, image, record.labels[single][kept], boxes)


class EvalSet(Dataset[Sample]):
    """Whole pictures, resized to their canvases; by their index in the data set.

    Args:
        data: the pictures.
        input_format: the canvases.
    """

    def __init__(self, data: DetectionData, *, input_format: InputFormat) -> None:
        self.data = data
        self.input_format = input_format

    def __len__(self) -> int:
        return len(self.data.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.data.records[index]
        single = ~record.crowd
        canvas = self.input_format.canvas(record.height, record.width)
        view = View(Window.whole(record.height, record.width), canvas)
        return _sample(
            record, view.picture(read_record(record)), record.labels[single], view.boxes(record.boxes()[single])
        )


def read_record(record: Record) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a record.

    Raises:
        ValueError: if the file cannot be read, or if its size is not the one that the annotations are for.
    """
    picture = read_image(record.path)
    height, width = picture.shape[:2]
    if (height, width) != (record.height, record.width):
        raise ValueError(
            f"{record.path} has {width} x {height} pixels, but its annotations are for {record.width} x "
            f"{record.height}: restore the picture, or correct its width and height in the annotation file"
        )
    return picture


def collate(samples: Sequence[Sample], input_format: InputFormat) -> Batch:
    """Samples to a batch; their images normalised, then padded with zeros at the bottom and on the right."""
    targets = [
        Targets(sample.labels, sample.boxes, (sample.size.input_height, sample.size.input_width)) for sample in samples
    ]
    images, padding_mask = _padded([sample.image for sample in samples], input_format)
    return Batch(
        images=images,
        padding_mask=padding_mask,
        targets=targets,
        sizes=[sample.size for sample in samples],
        image_ids=[sample.image_id for sample in samples],
    )


def _padded(
    canvases: Sequence[UInt8[Tensor, "3 _h _w"]], input_format: InputFormat
) -> tuple[Float32[Tensor, "b 3 h w"], Bool[Tensor, "b h w"] | None]:
    """Normalised images as large as the largest canvas, and where they are padding; None where nowhere."""
    height, width = (max(canvas.shape[axis] for canvas in canvases) for axis in (1, 2))
    if all(canvas.shape[1:] == (height, width) for canvas in canvases):
        return normalise(torch.stack(list(canvases)), input_format), None
    images = torch.zeros(len(canvases), 3, height, width)
    padding_mask = torch.ones(len(canvases), height, width, dtype=torch.bool)
    for canvas, image, mask in zip(canvases, images, padding_mask, strict=True):
        _, h, w = canvas.shape
        image[:, :h, :w] = normalise(canvas, input_format)
        mask[:h, :w] = False
    return images, padding_mask


class BatchLoader(DataLoader[Any]):
    """A DataLoader of ``Batch`` that leaves this process's random state alone and reports failures in one
    line.

    Make one with ``train_loader`` or ``eval_loader``.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Batch by batch.

        Raises:
            ValueError: naming the picture, where one could not be read.
        """
        failure = None
        for batch in super().__iter__():
            if isinstance(batch, Failure):
                failure = batch
                break
            yield cast(Batch, batch)
        if failure is not None:
            # Ends the workers. The traceback would keep them until garbage is collected, and in that order of
            # events torch waits five seconds for each.
            self._iterator = None
            raise ValueError(failure.message)


def train_loader(
    data: DetectionData,
    *,
    augmentation: Augmentation,
    input_format: InputFormat,
    sampler: BatchSampler,
    num_workers: int = 0,
    cache_bytes: int = 0,
    pin_memory: bool = False,
) -> BatchLoader:
    """Batches for training, in the sampler's order.

    Args:
        data: the pictures that the sampler counts.
        augmentation: what may happen to them.
        input_format: how they are resized and normalised; their image size is the sampler's.
        sampler: which samples each step takes.
        num_workers: processes that make samples ahead of time; 0 makes them in this one.
        cache_bytes: memory for decoded pictures, in bytes, in each of those processes.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.

    Raises:
        ValueError: if the sampler counts another number of pictures.
    """
    if sampler.num_samples != len(data.records):
        raise ValueError(f"the sampler counts {sampler.num_samples} pictures, the data set {len(data.records)}")
    samples = TrainSet(
        data, augmentation=augmentation, input_format=input_format, seed=sampler.seed, cache_bytes=cache_bytes
    )
    return _loader(samples, sampler, num_workers, pin_memory)


def eval_loader(
    data: DetectionData,
    *,
    input_format: InputFormat,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> BatchLoader:
    """Every picture once, in batches of equal canvases; in the order of the data set as far as canvases are equal.

    Batches may be smaller than ``batch_size``; none has padding.

    Args:
        data: the pictures.
        input_format: their size and normalisation.
        batch_size: pictures of one batch, at most.
        num_workers: processes that read ahead of time; 0 reads in this one.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    canvases = [input_format.canvas(record.height, record.width) for record in data.records]
    batches = equal_canvases(canvases, batch_size)
    return _loader(EvalSet(data, input_format=input_format), batches, num_workers, pin_memory)


class _Guarded(Dataset[Sample | Failure]):
    """Turns what is wrong with a file into a value: an exception would leave a worker as a traceback."""

    def __init__(self, samples: TrainSet | EvalSet) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Any) -> Sample | Failure:
        try:
            return self.samples[key]
        except (OSError, ValueError) as error:
            return Failure(" ".join(str(error).split()))


def _loader(
    samples: TrainSet | EvalSet,
    batches: BatchSampler | list[list[int]],
    num_workers: int,
    pin_memory: bool,
) -> BatchLoader:
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    collate_fn: Callable[[list[Sample | Failure]], Batch | Failure] = partial(
        _collate_or_fail, input_format=samples.input_format
    )
    return BatchLoader(
        _Guarded(samples),
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate_fn,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        persistent_workers=num_workers > 0,
        # A loader without its own draws from the global one, and evaluating would change the training.
        generator=torch.Generator(),
    )


def _collate_or_fail(samples: list[Sample | Failure], input_format: InputFormat) -> Batch | Failure:
    for sample in samples:
        if isinstance(sample, Failure):
            return sample
    return collate(cast(list[Sample], samples), input_format)


def _start_worker(_: int) -> None:
    """One thread per worker; Ctrl-C is the main process's to answer, which then ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_unless_left


def _report_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Keeps quiet where the main process, interrupted, no longer listens to a worker's threads."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


def _sample(
    record: Record,
    image: UInt8[Tensor, "3 height width"],
    labels: Int64[np.ndarray, " n"],
    boxes: Float32[np.ndarray, "n 4"],
) -> Sample:
    _, height, width = image.shape
    return Sample(
        image=image,
        labels=torch.from_numpy(labels),
        boxes=torch.from_numpy(boxes),
        size=ImageSize(record.height, record.width, height, width),
        image_id=record.image_id,
    )
