"""From samples to batches, made in this process or in workers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from boxwright.data.images import normalize, pad_inputs
from boxwright.data.loading.equal_sizes import divide_batches, group_equal_sizes
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.loading.samples import EvalSet, Sample, TrainSet
from boxwright.data.records import DetectionData, image_sizes
from boxwright.data.transforms.augment import Augmentation
from boxwright.data.transforms.transform import Transform
from boxwright.structures import Batch, Targets
from boxwright_runtime.input_format import InputFormat
from boxwright_runtime.read_ahead import map_ahead, plan_read_ahead


class Failure(NamedTuple):
    """The reason why a sample could not be made, sent by a worker instead of it."""

    message: str


def collate(samples: Sequence[Sample], input_format: InputFormat) -> Batch:
    """Make a batch of samples; normalize their images, then pad them at the bottom and on the right."""
    images, padding_mask = _pad_images(samples, input_format)
    targets = [_targets(sample, images.shape[2], images.shape[3]) for sample in samples]
    return Batch(
        images=images,
        padding_mask=padding_mask,
        targets=targets,
        sizes=[sample.size for sample in samples],
        image_ids=[sample.image_id for sample in samples],
    )


def _targets(sample: Sample, height: int, width: int) -> Targets:
    """Return the targets of a sample in a padded input that may be larger than its own."""
    own = (sample.size.input_height, sample.size.input_width)
    masks = sample.masks
    if masks is not None and own != (height, width):
        masks = pad(masks, (0, width - own[1], 0, height - own[0]))
    return Targets(sample.labels, sample.boxes, own, masks, sample.seed)


def _pad_images(
    samples: Sequence[Sample], input_format: InputFormat
) -> tuple[Float32[Tensor, "b 3 h w"], Bool[Tensor, "b h w"] | None]:
    """Normalize images and pad them to the largest; return them and their padding mask, None without padding."""
    inputs = [sample.image for sample in samples]
    padded = [sample.padded_size or tuple(sample.image.shape[1:]) for sample in samples]
    height, width = (max(size[axis] for size in padded) for axis in (0, 1))
    if all(one.shape[1:] == (height, width) for one in inputs):
        return normalize(torch.stack(inputs), input_format), None
    return pad_inputs([normalize(one, input_format) for one in inputs], height, width, input_format)


class BatchLoader(DataLoader[Any]):
    """A DataLoader of ``Batch`` that leaves this process's random state alone and reports failures in one line.

    Make one with ``train_loader`` or ``eval_loader``.
    """

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Iterate over the batches.

        Raises:
            ValueError: naming the image, where one could not be read.
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


class _AheadLoader(BatchLoader):
    """Makes batches in this process, and decodes the images of files ahead, in threads that end with the iterator."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        samples, batches = cast(_Guarded, self.dataset), cast(list[list[int]], self.batch_sampler)
        records, order = samples.samples.data.records, [index for batch in batches for index in batch]
        ahead = plan_read_ahead(len(order), max(map(len, batches), default=1))
        made = map_ahead(
            lambda _, index: samples[index],
            order,
            ahead,
            # Own samples are read where they were made: what reads them need not know of threads.
            in_thread=lambda index: records[index].source is None,
        )
        with closing(made):
            for batch in batches:
                collated = self.collate_fn([take() for _, (_, take) in zip(batch, made, strict=False)])
                if isinstance(collated, Failure):
                    raise ValueError(collated.message)
                yield cast(Batch, collated)


def train_loader(
    data: DetectionData,
    *,
    augmentation: Augmentation,
    input_format: InputFormat,
    sampler: BatchSampler,
    num_workers: int = 0,
    cache_bytes: int = 0,
    pin_memory: bool = False,
    with_masks: bool = False,
    image_transforms: Sequence[Transform] = (),
    input_transforms: Sequence[Transform] = (),
) -> BatchLoader:
    """Make batches for training, in the sampler's order.

    Args:
        data: the images that the sampler counts.
        augmentation: random changes, and the way to the network input.
        input_format: how they are resized and normalized; their image size is the sampler's.
        sampler: which samples each step takes.
        num_workers: processes that make samples ahead of time; 0 makes them in this one.
        cache_bytes: memory for decoded images, in bytes, in each of those processes.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.
        with_masks: make the objects' masks too; ``check_masks`` checks that the data has them.
        image_transforms: own transforms of whole images, before ``augmentation``.
        input_transforms: own transforms of network inputs, after it.

    Raises:
        ValueError: if the sampler counts another number of images.
    """
    if sampler.num_samples != len(data.records):
        raise ValueError(f"the sampler counts {sampler.num_samples} images, the data set {len(data.records)}")
    samples = TrainSet(
        data,
        augmentation=augmentation,
        input_format=input_format,
        seed=sampler.seed,
        cache_bytes=cache_bytes,
        with_masks=with_masks,
        image_transforms=image_transforms,
        input_transforms=input_transforms,
    )
    return _loader(samples, sampler, num_workers, pin_memory)


def eval_loader(
    data: DetectionData,
    *,
    input_format: InputFormat,
    batch_size: int,
    num_workers: int = 0,
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """Make batches of equal input size, with every image once; in the data set's order among equal sizes.

    Batches may be smaller than ``batch_size``; only the input format adds padding. Processes that divide the images
    have whole batches of those that one would have, perhaps none.

    Args:
        data: the images.
        input_format: their size and normalization.
        batch_size: images of one batch, at most.
        num_workers: processes that read ahead of time; 0 reads in this one, files ahead in threads.
        pin_memory: copy batches to page-locked memory, for faster transfer to a GPU.
        rank: index of this process, from 0.
        world_size: number of processes.
    """
    batches = eval_batches(data, input_format=input_format, batch_size=batch_size)
    own = divide_batches(batches, _eval_sizes(data, input_format), world_size)[rank]
    samples = EvalSet(data, input_format=input_format)
    # Only torch's own iterators copy batches to page-locked memory.
    kind = BatchLoader if num_workers or pin_memory else _AheadLoader
    return _loader(samples, own, num_workers, pin_memory, kind)


def eval_batches(data: DetectionData, *, input_format: InputFormat, batch_size: int) -> list[list[int]]:
    """List the batches of ``eval_loader``, of all processes, as indices of images."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return group_equal_sizes(_eval_sizes(data, input_format), batch_size)


def _eval_sizes(data: DetectionData, input_format: InputFormat) -> list[tuple[int, int]]:
    return [input_format.input_size(height, width) for height, width in image_sizes(data.records).tolist()]


class _Guarded(Dataset[Sample | Failure]):
    """Samples whose errors become values: an exception would leave a worker as a traceback."""

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
    kind: type[BatchLoader] = BatchLoader,
) -> BatchLoader:
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, got {num_workers}")
    collate_fn: Callable[[list[Sample | Failure]], Batch | Failure] = partial(
        _collate_or_fail, input_format=samples.input_format
    )
    return kind(
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
    """Set one thread per worker; leave Ctrl-C to the main process, which then ends its workers."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _report_unless_left


def _report_unless_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report an error, unless the main process was interrupted and no longer listens to a worker's threads."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
