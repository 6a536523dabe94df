"""The order of training samples: a pure function of the seed and of one number, the position in the stream.

The stream is endless: epoch after epoch, each in its own random order. Sample ``g`` of it belongs to epoch
``g // n``. Step ``s`` takes the samples from ``s * batch_size`` on, across the borders of epochs, so that
every step is full. To resume a run, nothing but the step is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from torch.utils.data import Sampler

_ORDER, _IMAGE_SIZE, _AUGMENTATION = range(3)
"""What a random stream is for: no two purposes share one."""


class SampleKey(NamedTuple):
    """All that a training sample depends on, apart from the data set and the seed.

    Args:
        record: which image of the data set, by its place in ``DetectionData.records``.
        epoch: in which pass over the data set it is seen.
        image_size: side of a square canvas, or its shortest side, in pixels.
        light: augmented by mirroring only.
    """

    record: int
    epoch: int
    image_size: int
    light: bool = False


class BatchSampler(Sampler[list[SampleKey]]):
    """The batches of steps ``start_step`` to ``num_steps - 1`` of a run; this process's share of each.

    The processes of a run share out each step's samples without changing them, and draw the same image size.

    Args:
        seed: of the run; not negative.
        num_samples: images in the data set.
        batch_size: samples of one step, over all processes.
        num_steps: steps of the whole run.
        image_sizes: sides of the canvas, or shortest sides, that steps choose from, with equal probability; a size
            that is named twice is chosen twice as often.
        start_step: steps that were done before.
        light_from_step: first step of the last stage, which mirrors only; None where there is no such stage.
        light_size: image size in the last stage; drawn as before where None.
        rank: which process this is, from 0.
        world_size: number of processes.

    Raises:
        ValueError: if a number is out of range, or the batch cannot be shared out evenly.
    """

    def __init__(
        self,
        *,
        seed: int,
        num_samples: int,
        batch_size: int,
        num_steps: int,
        image_sizes: Sequence[int],
        start_step: int = 0,
        light_from_step: int | None = None,
        light_size: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_samples < 1:
            raise ValueError("there are no images to train on: the data set is empty")
        if batch_size < 1 or world_size < 1 or batch_size % world_size:
            raise ValueError(
                f"a batch of {batch_size} cannot be shared out evenly to {world_size} processes: "
                f"choose a positive multiple of {max(world_size, 1)}"
            )
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
        self.light_from_step = light_from_step
        self.light_size = light_size
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for step in range(self.start_step, self.num_steps):
            yield self.batch(step)

    def __len__(self) -> int:
        return max(0, self.num_steps - self.start_step)

    def batch(self, step: int) -> list[SampleKey]:
        """This process's samples of one step."""
        share = self.batch_size // self.world_size
        first = step * self.batch_size + self.rank * share
        image_size = self.image_size(step)
        light = self._is_light(step)
        keys = []
        for position in range(first, first + share):
            epoch, place = divmod(position, self.num_samples)
            record = int(epoch_order(self.seed, epoch, self.num_samples)[place])
            keys.append(SampleKey(record, epoch, image_size, light))
        return keys

    def image_size(self, step: int) -> int:
        """Side of the canvas, or its shortest, in one step, in pixels; the same in all processes."""
        if self.light_size is not None and self._is_light(step):
            return self.light_size
        if len(self.image_sizes) == 1:
            return self.image_sizes[0]
        rng = np.random.default_rng([self.seed, _IMAGE_SIZE, step])
        return self.image_sizes[int(rng.integers(len(self.image_sizes)))]

    def _is_light(self, step: int) -> bool:
        return self.light_from_step is not None and step >= self.light_from_step


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, num_samples: int) -> Int64[np.ndarray, " n"]:
    """The order of one epoch: a permutation of 0..n-1. Read-only, because calls share it."""
    order = np.random.default_rng([seed, _ORDER, epoch]).permutation(num_samples)
    order.flags.writeable = False
    return order


def augmentation_rng(seed: int, key: SampleKey) -> np.random.Generator:
    """The source of chance for one sample: the same in whichever process, worker or run it is made."""
    return np.random.default_rng([seed, _AUGMENTATION, key.epoch, key.record])
