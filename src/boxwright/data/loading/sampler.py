"""The order of training samples: a pure function of the seed and of one number, the position in the stream.

The stream is endless: epoch after epoch, each in its own random order. Sample ``g`` of it belongs to epoch
``g // n``. Pseudo-labels are a stream of their own, of which each epoch takes the next images. With groups, every
``size`` samples in a row from a multiple of ``size`` on are of one group, as far as that goes up. Step ``s`` takes the
samples from ``s * batch_size`` on, across the borders of epochs, so that every step is full. To resume a run, nothing
but the step is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

from boxwright.data.records import PseudoPart

_ORDER, _IMAGE_SIZE, _AUGMENTATION, _DRAWS, _PSEUDO = range(5)
"""Purposes of random streams: no two share one."""


class AugmentationStage(Enum):
    """The augmentation of a step, which changes over training; in the order that a run goes through them."""

    FLIPPED = "images are only flipped"
    MIXED = "strong augmentation, mosaic and mixup included"
    STRONG = "strong augmentation of single images, and CopyBlend"
    LAST = "images are only flipped, and have one size"

    @property
    def is_strong(self) -> bool:
        """True with strong augmentation."""
        return self in (AugmentationStage.MIXED, AugmentationStage.STRONG)


class SampleKey(NamedTuple):
    """All that a training sample depends on, apart from the data set and the seed.

    Args:
        record: index of the image in ``DetectionData.records``.
        epoch: pass over the data set in which it is seen; over the pseudo-labels alone, where it has such.
        image_size: side of a square network input, or its shortest side, in pixels.
        is_strong: with strong augmentation; False in the first and the last stage of training, which mirror only.
        is_mixed: with mosaic and mixup, where the recipe has them.
    """

    record: int
    epoch: int
    image_size: int
    is_strong: bool = True
    is_mixed: bool = False


@dataclass(frozen=True, eq=False)
class ImageGroups:
    """Groups of images of which ``size`` in a row are taken from the same group; compared by identity, which is fast.

    Args:
        group_of: the group of each image of the data set.
        size: images that go through the network together.
    """

    group_of: tuple[int, ...]
    size: int


def check_batches(num_samples: int, batch_size: int, world_size: int) -> None:
    """Raise ValueError where there is no image, or where processes cannot divide a batch evenly."""
    if num_samples < 1:
        raise ValueError("there are no images to train on: the data set is empty")
    if batch_size < 1 or world_size < 1 or batch_size % world_size:
        raise ValueError(
            f"a batch of {batch_size} cannot be divided evenly between {world_size} processes: "
            f"give a positive multiple of {max(world_size, 1)} as train.batch_size"
        )


class BatchSampler(Sampler[list[SampleKey]]):
    """The batches of a run from step ``start_step`` on; this process's part of each.

    The processes of a run divide each step's samples without changing them, and draw the same image size.

    Args:
        seed: of the run; not negative.
        num_samples: images in the data set.
        batch_size: samples of one step, over all processes.
        num_steps: steps of the whole run; None where it ends when somebody stops taking batches.
        image_sizes: sides of the network input, or shortest sides, that steps choose from, with equal probability; a
            size that is named twice is chosen twice as often.
        start_step: steps that were done before.
        stage_of: the augmentation of a step, asked when its turn comes; always strong and without mosaic and mixup
            where None.
        no_aug_size: image size in the last stage; drawn as before where None.
        rank: index of this process, from 0.
        world_size: number of processes.
        groups: of images that go through the network together; in random order where None.
        pseudo: the last images of the data set, if their labels are a detector's.

    Raises:
        ValueError: a number is out of range, or the batch cannot be divided evenly.
    """

    def __init__(
        self,
        *,
        seed: int,
        num_samples: int,
        batch_size: int,
        num_steps: int | None,
        image_sizes: Sequence[int],
        start_step: int = 0,
        stage_of: Callable[[int], AugmentationStage] | None = None,
        no_aug_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        groups: ImageGroups | None = None,
        pseudo: PseudoPart | None = None,
    ) -> None:
        check_batches(num_samples, batch_size, world_size)
        if not image_sizes or min(image_sizes) < 1:
            raise ValueError(f"image_sizes must name at least one positive size, got {list(image_sizes)}")
        if seed < 0 or start_step < 0:
            raise ValueError(f"seed and start_step must not be negative, got {seed} and {start_step}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to world_size - 1 = {world_size - 1}, got {rank}")
        self.seed = seed
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.num_steps = num_steps
        self.image_sizes = tuple(image_sizes)
        self.start_step = start_step
        self.stage_of = stage_of
        self.no_aug_size = no_aug_size
        self.rank = rank
        self.world_size = world_size
        self.groups = groups
        self.pseudo = pseudo
        self.epoch_images = num_samples + (pseudo.drawn - pseudo.count if pseudo else 0)
        if groups is not None and len(groups.group_of) != num_samples:
            raise ValueError(f"groups are given for {len(groups.group_of)} images, and there are {num_samples}")

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in count(self.start_step):
            if self.num_steps is not None and step >= self.num_steps:
                return
            yield self.batch(step)

    def __len__(self) -> int:
        return sys.maxsize if self.num_steps is None else max(0, self.num_steps - self.start_step)

    def batch(self, step: int) -> list[SampleKey]:
        """List this process's samples of one step."""
        size = self.batch_size // self.world_size
        first = step * self.batch_size + self.rank * size
        image_size = self.image_size(step)
        stage = self._stage(step)
        keys = []
        for position in range(first, first + size):
            epoch, index = divmod(position, self.epoch_images)
            seen, record = divmod(int(self._order(epoch)[index]), self.num_samples)
            keys.append(SampleKey(record, seen, image_size, stage.is_strong, stage is AugmentationStage.MIXED))
        return keys

    def image_size(self, step: int) -> int:
        """Draw the side of the network input, or its shortest, of one step, in pixels; the same in all processes."""
        if self.no_aug_size is not None and self._stage(step) is AugmentationStage.LAST:
            return self.no_aug_size
        if len(self.image_sizes) == 1:
            return self.image_sizes[0]
        rng = np.random.default_rng([self.seed, _IMAGE_SIZE, step])
        return self.image_sizes[int(rng.integers(len(self.image_sizes)))]

    def _order(self, epoch: int) -> Int64[np.ndarray, " n"]:
        if self.groups is None:
            return epoch_order(self.seed, epoch, self.num_samples, self.pseudo)
        return grouped_epoch_order(self.seed, epoch, self.groups, self.pseudo)

    def _stage(self, step: int) -> AugmentationStage:
        return AugmentationStage.STRONG if self.stage_of is None else self.stage_of(step)


@lru_cache(maxsize=4)
def epoch_order(
    seed: int, epoch: int, num_samples: int, pseudo: PseudoPart | None = None
) -> Int64[np.ndarray, " images_of_epoch"]:
    """Draw the order of one epoch. Read-only, because calls share it.

    Args:
        seed: of the run.
        epoch: from 0.
        num_samples: images in the data set.
        pseudo: the last of them, if their labels are a detector's.

    Returns:
        Of each sample, the index of the image plus ``num_samples`` times the number of times that it was seen before.
    """
    labeled = num_samples - (pseudo.count if pseudo else 0)
    samples = epoch * num_samples + np.arange(labeled)
    if pseudo:
        own, at = np.divmod(np.arange(epoch * pseudo.drawn, (epoch + 1) * pseudo.drawn), pseudo.count)
        images = np.empty_like(at)
        for number in np.unique(own).tolist():
            permutation = np.random.default_rng([seed, _PSEUDO, number]).permutation(pseudo.count)
            images[own == number] = permutation[at[own == number]]
        samples = np.concatenate((samples, own * num_samples + labeled + images))
    order = samples[np.random.default_rng([seed, _ORDER, epoch]).permutation(len(samples))]
    order.flags.writeable = False
    return order


@lru_cache(maxsize=4)
def grouped_epoch_order(
    seed: int, epoch: int, groups: ImageGroups, pseudo: PseudoPart | None = None
) -> Int64[np.ndarray, " images_of_epoch"]:
    """Order an epoch so that the images of a batch are of one group: every image once, batches in random order.

    The images of each group that do not fill a batch, fewer than a batch of each, come at the end, and at the start
    where the epoch before ended within a batch. Arguments and values are those of ``epoch_order``.

    Source: ``GroupedBatchSampler`` of torchvision's training, which fills a group's last batch with images that are
    repeated, and forgets what is left of the others.
    """
    num_samples = len(groups.group_of)
    order = epoch_order(seed, epoch, num_samples, pseudo)
    group_of = np.asarray(groups.group_of)[order % num_samples]
    full, rest = [np.empty((0, groups.size), np.int64)], [np.empty(0, np.int64)]
    for group in np.unique(group_of):
        positions = np.flatnonzero(group_of == group)
        whole = len(positions) // groups.size * groups.size
        full.append(positions[:whole].reshape(-1, groups.size))
        rest.append(positions[whole:])
    batches, left = np.concatenate(full), np.concatenate(rest)
    # A batch comes when its last image has been drawn.
    batches = batches[np.argsort(batches[:, -1])]
    # Positions of the stream at which batches begin are multiples of their size, over the borders of epochs.
    head = min(-epoch * len(order) % groups.size, len(order))
    while len(left) < head:
        batches, left = batches[:-1], np.concatenate((left, batches[-1]))
    order = order[np.concatenate((left[:head], batches.ravel(), left[head:]))]
    order.flags.writeable = False
    return order


def aspect_ratio_groups(sizes: Sequence[tuple[int, int]], count: int) -> tuple[int, ...]:
    """Tell images apart by their aspect ratio.

    Args:
        sizes: (height, width) of each image.
        count: 2, wide (and square) or tall, as in mmdetection; 8, with borders at 2 ** (-1, -2/3, ... 1), as in
            torchvision's training with its factor of 3.
    """
    borders = [1.0] if count == 2 else list(2 ** np.linspace(-1, 1, count - 1))
    ratios = [width / height for height, width in sizes]
    return tuple(int(group) for group in np.searchsorted(borders, ratios, side="right"))


def augmentation_rng(seed: int, key: SampleKey) -> np.random.Generator:
    """Make the source of chance for one sample: the same in whichever process, worker or run it is made."""
    return np.random.default_rng([seed, _AUGMENTATION, key.epoch, key.record])


def draws_seed(seed: int, key: SampleKey) -> int:
    """Draw the seed of the random choices that the detector makes for one sample, see ``Targets``."""
    state = np.random.SeedSequence([seed, _DRAWS, key.epoch, key.record]).generate_state(1, np.uint64)
    return int(state[0])
