"""The changes over training: learning rate, moving average, augmentation, evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from boxwright.compose.train_options import TrainOptions
from boxwright.data.loading.sampler import AugmentationStage

NO_AUG_EPOCHS = 12
MIN_NO_AUG_FRACTION = 0.1


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on how far a run is, laid over ``steps`` steps.

    A position is a number of steps done, from 0 to ``steps``. In a run of fixed length it is a whole number; in one
    with a budget of time, whose steps become more or fewer on the way, it is ``Progress.position``.

    Args:
        steps: optimizer steps of the whole run, as it was planned at first.
        options: their shape.
        num_images: images that a pass over the data consists of.
    """

    steps: int
    options: TrainOptions
    num_images: int

    def lr_factor(self, position: int | float) -> float:
        """Fraction of the highest learning rate in the step that begins here: a rise, a plateau, a fall.

        **Source**: of ``flat_cosine``, Lyu et al., "RTMDet", 2022, as in DEIM (Huang et al., CVPR 2025),
        ShihuaHuang95/DEIM a9aa4ad (``flat_cosine_schedule``), with the same numbers after the rise. The rise is the
        same parabola, but does not begin with a step of rate 0. Their code sets the rate after the optimizer's step:
        there each step has the rate of the one before, and the first of all has the full one.
        """
        schedule = self.options.schedule
        warmup = min(schedule.warmup_steps, self.steps // 10)
        rise = min(1.0, (position + 1) / (warmup + 1))
        if schedule.decay == "constant":
            return rise
        if schedule.decay == "flat_cosine":
            return rise**2 * self._flat_cosine(position)
        low = schedule.final_lr_ratio
        if schedule.milestones is not None:
            drops = sum(position >= self._step_of_epoch(epoch) for epoch in schedule.milestones)
            return rise * low**drops
        decay = round(schedule.decay_fraction * self.steps)
        done = position - (self.steps - decay)
        if schedule.decay == "step":
            return rise * low if decay and done >= 0 else rise
        if decay == 0 or done <= 0:
            return rise
        return rise * self._half_cosine(done / decay)

    def _flat_cosine(self, position: int | float) -> float:
        """A plateau, half a cosine to where strong augmentation ends, or else to the end, and a plateau again."""
        schedule = self.options.schedule
        first = self.steps - round(schedule.decay_fraction * self.steps)
        if schedule.milestones is not None:
            first = self._step_of_epoch(schedule.milestones[0])
        last = self.no_aug_from if self.no_aug_from > first else self.steps
        return self._half_cosine(min(1.0, max(0.0, (position - first) / max(1, last - first))))

    def _half_cosine(self, done: float) -> float:
        low = self.options.schedule.final_lr_ratio
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))

    def ema_decay(self, step: int) -> float:
        """Decay of the moving average after ``step``, counted from 0; lower at first.

        Source: where ``ema_warmup`` is None the ramp of tf.train.ExponentialMovingAverage, which has no length of its
        own to choose and averages the last tenth or so early on; else that of lyuwenyu/RT-DETR 068dfde, whose 2,000
        steps average nothing in a run of 1,000.
        """
        decay, warmup = self.options.ema_decay, self.options.schedule.ema_warmup
        if warmup is None:
            return min(decay, (1 + step) / (10 + step))
        return decay * (1 - math.exp(-(1 + step) / warmup)) if warmup else decay

    @property
    def no_aug_from(self) -> int:
        """The position at which the last stage begins, whose images are only flipped."""
        schedule = self.options.schedule
        if schedule.no_aug_epochs is not None:
            return self._step_of_epoch(self.options.epochs - schedule.no_aug_epochs)
        fraction = schedule.no_aug_fraction
        if fraction is None:
            passes = NO_AUG_EPOCHS * self.num_images / (self.options.batch_size * self.steps)
            fraction = min(1.0, max(MIN_NO_AUG_FRACTION, passes))
        return self.steps - round(fraction * self.steps)

    def stage(self, position: int | float) -> AugmentationStage:
        """Return the augmentation of the step that begins here."""
        if position >= self.no_aug_from:
            return AugmentationStage.LAST
        first, last = self.mixing_steps
        if position < first:
            return AugmentationStage.FLIPPED
        return AugmentationStage.MIXED if position < last else AugmentationStage.STRONG

    @property
    def mixing_steps(self) -> tuple[int, int]:
        """The positions from which on and until which there are mosaics and mixup, where the last stage is not."""
        epochs = self.options.schedule.mixing_epochs
        if epochs is None:
            return 0, self.steps // 2
        return self._step_of_epoch(epochs[0]), self._step_of_epoch(epochs[1])

    def evaluates_between(self, before: int | float, after: int | float, evaluations: int) -> bool:
        """Tell if one of ``evaluations`` evaluations comes after the step from one position to another."""
        return after * evaluations // self.steps > before * evaluations // self.steps

    def _step_of_epoch(self, epoch: int) -> int:
        """The step that a number of epochs of ``train.epochs`` comes to in this run, whatever its length."""
        return round(epoch / self.options.epochs * self.steps)
