"""What can be chosen about training."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a detector is trained.

    Args:
        epochs: passes over the training images.
        steps: optimizer steps, instead of epochs.
        budget: time for all of training, its evaluations included, instead of epochs: 45s, 10m, 2h. The speed is
            measured first; the number of steps that follows from it is stored, so that a resumed run is the same run.
        batch_size: images per optimizer step, over all processes and accumulated batches.
        accumulate: batches that a step's images are split into, for less memory.
        lr: learning rate at its highest.
        backbone_lr: learning rate of the backbone; ``lr`` where None.
        lr_factors: learning rates of parts of the detector as multiples of their own; a key is one of the names between
            dots in a parameter's name, as in ``{sampling_offsets: 0.1}``.
        optimizer: AdamW, or stochastic gradient descent (sgd).
        momentum: of sgd; 0 for none.
        weight_decay: of AdamW, or the factor of the L2 penalty of sgd.
        norm_decay: norms and biases decay too, as in DETR and Deformable DETR.
        max_grad_norm: largest norm of the gradient of a step; 0 for no limit.
        warmup_steps: steps over which the learning rate rises; at most a tenth of all.
        decay_fraction: the last share of the steps, in which the learning rate is lower; 0 for none.
        decay: it falls there along half a ``cosine``, or at once, in one ``step``.
        final_lr_ratio: where it falls to, as a share of ``lr``.
        no_aug_fraction: the last share of the steps, in which images are only flipped and keep one size. Where None, 12
            passes over the images, and at least a tenth: changed images pay once the plain ones are known.
        ema: decay of the moving average of the weights; early on min(ema, (1 + step) / (10 + step)). 0 for none.
        multi_scale: images are trained at sizes from 1 - x to 1 + x times the image size, in steps of 32 pixels; 0
            for one size.
        evaluations: on the validation split, evenly over training; the last step is always evaluated.
        precision: bfloat16 runs the network under autocast; weights, boxes and losses stay float32. auto takes it where
            the device multiplies it natively; what was taken is stored with the run.
        seed: of weights, order, augmentation and noise.
        workers: processes that read images; where None, none on a CPU and one per core, at most 8, beside a GPU.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
    """

    epochs: int = 72
    steps: int | None = None
    budget: str | None = None
    batch_size: int = 16
    accumulate: int = 1
    lr: float = 1e-4
    backbone_lr: float | None = None
    lr_factors: dict[str, float] | None = None
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_decay: bool = False
    max_grad_norm: float = 0.1
    warmup_steps: int = 2000
    decay_fraction: float = 0.5
    decay: Literal["cosine", "step"] = "cosine"
    final_lr_ratio: float = 0.02
    no_aug_fraction: float | None = None
    ema: float = 0.9999
    multi_scale: float = 0.25
    evaluations: int = 10
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = 0
    workers: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        positive = ("epochs", "steps", "batch_size", "accumulate", "lr", "backbone_lr", "evaluations")
        shares = ("decay_fraction", "final_lr_ratio", "no_aug_fraction", "ema", "multi_scale", "momentum")
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"train.{name} is a finite number, not {value}")
        for name in positive:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"train.{name} is greater than 0, not {value}")
        for name in ("weight_decay", "max_grad_norm", "warmup_steps", "workers", "seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"train.{name} is at least 0, not {value}")
        for name in shares:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"train.{name} is between 0 and 1, not {value}")
        for name, factor in (self.lr_factors or {}).items():
            if not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"train.lr_factors.{name} is a finite number greater than 0, not {factor}")
        for name in ("ema", "multi_scale", "momentum"):
            if getattr(self, name) == 1:
                raise ValueError(f"train.{name} is less than 1")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size is a multiple of train.accumulate, and {self.batch_size} is not one of "
                f"{self.accumulate}"
            )
        if self.steps is not None and self.budget is not None:
            raise ValueError("train.steps and train.budget both say how long to train; give one")
        if self.budget is not None:
            seconds(self.budget)


def seconds(budget: str) -> float:
    """The seconds of a budget like 45s, 10m or 1.5h.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not match or float(match[1]) == 0:
        raise ValueError(f"train.budget is a number and s, m or h, like 45s, 10m or 2h, not {budget!r}")
    return float(match[1]) * UNITS[match[2]]


def training_sizes(image_size: int, multi_scale: float) -> tuple[int, ...]:
    """The sizes that training chooses from, evenly: multiples of 32, the image size itself three times.

    Source: the sizes of lyuwenyu/RT-DETR 068dfde for 640 pixels and 0.25: 480, 512, ... 800.
    """
    if multi_scale == 0:
        return (image_size,)
    step = 32
    below = int(image_size * multi_scale) // step
    sizes = [image_size + i * step for i in range(-below, below + 1) if image_size + i * step >= step]
    return tuple(sorted([*sizes, image_size, image_size]))
