"""Training on a few images again and again, without random changes, to see whether anything is learned."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from boxwright.compose.recipe import Recipe
from boxwright.compose.train_options import TrainOptions
from boxwright.data.loading.loader import collate
from boxwright.data.loading.sampler import SampleKey
from boxwright.data.loading.samples import TrainSet
from boxwright.data.records import DetectionData
from boxwright.data.transforms.augment import OFF, Augmentation
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training.optimizer import make_optimizer, set_lr
from boxwright.training.step import resolve_precision, train_step

NO_AUGMENTATION = Augmentation(
    mosaic=0.0,
    mixup=0.0,
    copy_blend=0.0,
    photometric=0.0,
    channel_shuffle=0.0,
    zoom_out=0.0,
    iou_crop=0.0,
    flip=0.0,
    vertical_flip=0.0,
    scale_range=OFF,
    size_crop=0.0,
    scale_jitter=OFF,
    resized_crop=OFF,
    rand_augment=(0, 0),
)

RISE_STEPS = 10
"""Steps over which the rate rises to its constant value."""


@dataclass(frozen=True)
class OverfitResult:
    """Losses of an overfitted detector.

    Args:
        losses: mean loss of each pass over the images.
        steps: optimizer steps.
        seconds: time that they took.
    """

    losses: tuple[float, ...]
    steps: int
    seconds: float

    @property
    def remaining(self) -> float:
        """Loss of the last pass, as a fraction of that of the first."""
        return self.losses[-1] / self.losses[0]


def overfit(
    detector: Detector,
    data: DetectionData,
    recipe: Recipe,
    device: torch.device,
    *,
    max_steps: int,
    max_seconds: float,
    progress: Callable[[int, int], None] | None = None,
) -> OverfitResult:
    """Train a detector on all images of a data set, with the recipe's loss and optimizer and a constant rate.

    Args:
        detector: trained in place.
        data: a few images.
        recipe: of the detector.
        device: of the detector.
        max_steps: the most steps.
        max_seconds: time after which no step begins; at least one pass over the images is made.
        progress: called as ``progress(done, total)`` after each step.

    Raises:
        ValueError: training has diverged, or an image cannot be read.
    """
    options = _options(recipe.train, device, len(data.records))
    batches = _batches(detector, data, recipe, options.batch_size)
    torch.manual_seed(options.runtime.seed)
    detector.train()
    optimizer = make_optimizer(detector, options)
    losses: list[float] = []
    start = time.monotonic()
    for step in range(max(max_steps, len(batches))):
        if step >= len(batches) and time.monotonic() - start > max_seconds:
            break
        set_lr(optimizer, min(1.0, (step + 1) / RISE_STEPS))
        losses.append(train_step(detector, detector, optimizer, batches[step % len(batches)], options, device).loss)
        if progress is not None:
            progress(step + 1, max_steps)
    count = len(batches)
    passes = [math.fsum(losses[i : i + count]) / count for i in range(0, len(losses) - count + 1, count)]
    return OverfitResult(tuple(passes), len(losses), time.monotonic() - start)


def _options(options: TrainOptions, device: torch.device, num_images: int) -> TrainOptions:
    """Return the options with as many images at once as the recipe has, in one part, of those that there are."""
    together = max(1, options.batch_size // options.batches.accumulate_steps)
    batches = replace(options.batches, accumulate_steps=1)
    return replace(resolve_precision(options, device), batch_size=min(together, num_images), batches=batches)


def _batches(detector: Detector, data: DetectionData, recipe: Recipe, batch_size: int) -> list[Batch]:
    input_format = detector.input_format
    samples = TrainSet(
        data,
        augmentation=NO_AUGMENTATION,
        input_format=input_format,
        seed=recipe.train.runtime.seed,
        with_masks=detector.needs_masks,
    )
    made = [samples[SampleKey(index, 0, input_format.image_size)] for index in range(len(samples))]
    count = -(-len(made) // batch_size)
    # Evenly, so that no batch is left with a single image.
    return [collate(made[part::count], input_format) for part in range(count)]
