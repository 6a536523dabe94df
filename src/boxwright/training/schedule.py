"""What changes over training: learning rate, moving average, augmentation, evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

from boxwright.compose.train_options import TrainOptions

LIGHT_EPOCHS = 12
LEAST_LIGHT_SHARE = 0.1


@dataclass(frozen=True)
class Schedule:
    """Everything that depends on the step, laid over exactly ``steps`` steps.

    Args:
        steps: optimizer steps of the whole run.
        options: their shape.
        num_images: images that a pass over the data consists of.
    """

    steps: int
    options: TrainOptions
    num_images: int

    def lr_factor(self, step: int) -> float:
        """Share of the highest learning rate at ``step``, counted from 0: a straight rise, a plateau, a fall."""
        warmup = min(self.options.warmup_steps, self.steps // 10)
        rise = min(1.0, (step + 1) / (warmup + 1))
        decay = round(self.options.decay_fraction * self.steps)
        done = step - (self.steps - decay)
        low = self.options.final_lr_ratio
        if self.options.decay == "step":
            return rise * low if decay and done >= 0 else rise
        if decay == 0 or done <= 0:
            return rise
        return rise * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done / decay)))

    def ema_decay(self, step: int) -> float:
        """Decay of the moving average after ``step``, counted from 0: early on it averages the last tenth or so.

        Source: the ramp of tf.train.ExponentialMovingAverage. It has no length of its own to choose, where the one of
        lyuwenyu/RT-DETR (1 - exp(-step / 2000)) averages nothing in a run of 1,000 steps.
        """
        return min(self.options.ema, (1 + step) / (10 + step))

    @property
    def light_from(self) -> int:
        """The first step of the last stage, whose images are only flipped."""
        share = self.options.no_aug_fraction
        if share is None:
            passes = LIGHT_EPOCHS * self.num_images / (self.options.batch_size * self.steps)
            share = min(1.0, max(LEAST_LIGHT_SHARE, passes))
        return self.steps - round(share * self.steps)

    def evaluates_after(self, step: int, evaluations: int) -> bool:
        """Whether one of ``evaluations`` evaluations comes after ``step``, counted from 0; always after the last."""
        done = step + 1
        return done * evaluations // self.steps > step * evaluations // self.steps
