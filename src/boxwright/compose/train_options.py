"""Options of training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

Slot = Literal["backbone", "neck", "head"]

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

ASPECT_RATIO_GROUPS = (0, 2, 8)
"""Numbers of groups that images are told apart into by their aspect ratio; 0 for none."""


MAX_WORKERS = 512
MAX_BATCH = 2**17
MAX_EVALUATIONS = 10**6
"""Largest numbers of processes, of images of a step, and of evaluations that are taken for meant."""


def seconds(duration: str, option: str = "train.budget") -> float:
    """Convert a duration like 45s, 10m or 1.5h to seconds.

    Raises:
        ValueError: it is not one; names the option that has it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", duration.strip())
    if not match or float(match[1]) == 0:
        raise ValueError(f"{option} is a number and s, m or h, like 45s, 10m or 2h, not {duration!r}")
    return float(match[1]) * UNITS[match[2]]


def _check_finite(section: str, options: dict[str, Any]) -> None:
    for name, value in options.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{section}.{name} is a finite number, not {value}")


def _check_range(
    section: str,
    options: dict[str, Any],
    *,
    positive: Sequence[str] = (),
    least: Sequence[str] = (),
    fractions: Sequence[str] = (),
    below_one: Sequence[str] = (),
    most: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Raise ValueError for the first number that is out of its range; None is in every range."""
    for name, value in options.items():
        if value is None:
            continue
        if name in positive and value <= 0:
            raise ValueError(f"{section}.{name} is greater than 0, not {value}")
        if name in least and value < 0:
            raise ValueError(f"{section}.{name} is at least 0, not {value}")
        if name in most and value > most[name]:
            raise ValueError(f"{section}.{name} is at most {most[name]:,}, not {value}")
        if name in (*fractions, *below_one) and not 0 <= value <= 1:
            raise ValueError(f"{section}.{name} is between 0 and 1, not {value}")
        if name in below_one and value == 1:
            raise ValueError(f"{section}.{name} is less than 1")


@dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
    """The optimizer, and which parameters decay.

    Args:
        name: AdamW, or stochastic gradient descent (sgd).
        momentum: of sgd; 0 for none.
        weight_decay: of AdamW, or the factor of the L2 penalty of sgd.
        norm_decay: norms and biases decay too, as in DETR and Deformable DETR.
        decayed_names: norms and biases that decay although ``norm_decay`` is false: names, or several with dots between
            them, as they stand in a parameter's name, as in ``[encoder_output.1.weight]``.
        lr_factors: learning rates of parts of the detector as multiples of their own; a key is one of the names between
            dots in a parameter's name, or several in their order, as in ``{sampling_offsets: 0.1, backbone.norm: 2}``.
        max_grad_norm: largest norm of the gradient of a step; 0 for no limit.
        fine_tune_factor: what learning rates are multiplied by where training begins with the weights of a whole
            detector (``--weights``), unless ``train.lr`` is typed.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    norm_decay: bool = False
    decayed_names: Sequence[str] | None = None
    lr_factors: dict[str, float] | None = None
    max_grad_norm: float = 0.1
    fine_tune_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.decayed_names is not None:
            object.__setattr__(self, "decayed_names", tuple(self.decayed_names))
        _check_finite("train.optimizer", vars(self))
        _check_range("train.optimizer", vars(self), least=("weight_decay", "max_grad_norm"), below_one=("momentum",))
        _check_range("train.optimizer", vars(self), positive=("fine_tune_factor",))
        for name, factor in (self.lr_factors or {}).items():
            if not (math.isfinite(factor) and factor > 0):
                raise ValueError(f"train.optimizer.lr_factors.{name} is a finite number greater than 0, not {factor}")


@dataclass(frozen=True, kw_only=True)
class ScheduleOptions:
    """Changes over training: learning rate, strong augmentation, moving average.

    Numbers of epochs are of a run of ``train.epochs``; where ``train.steps`` or ``train.budget`` make it shorter or
    longer, they change in proportion.

    Args:
        warmup_steps: steps over which the learning rate rises; at most a tenth of all.
        decay: the learning rate falls along half a ``cosine``, or at once, at each ``step``; or it is ``constant``.
            ``flat_cosine`` is a cosine that ends where strong augmentation does, after which the rate stays low; it
            rises as a square before.
        decay_fraction: the last fraction of the steps, in which the learning rate is lower; 0 for none. Not read where
            there are ``milestones``, or where the rate is constant.
        milestones: epochs after which the learning rate falls by one ``step``, to ``final_lr_ratio`` of what it was, as
            in ``[8, 11]``; of ``flat_cosine`` the one after which it begins to fall. At ``decay_fraction`` where None.
        final_lr_ratio: the learning rate after its fall, as a fraction of that before it.
        no_aug_fraction: the last fraction of the steps, in which images are only flipped and keep one size. Where both
            this and ``no_aug_epochs`` are None, 12 passes over the images, and at least a tenth: changed images pay
            once the plain ones are known.
        no_aug_epochs: the same as a number of epochs.
        mixing_epochs: epochs between which ``augment.mosaic`` and ``augment.mixup`` are on, as in ``[4, 64]``: from the
            first on, before which images are only flipped, until the second. The first half of the run where None.
        ema_warmup: steps over which the decay of the moving average rises, as ema_decay * (1 - exp(-step /
            ema_warmup)); 0 for a constant decay. Where None, min(ema_decay, (1 + step) / (10 + step)).
        evaluations: on the validation split, evenly over training, one of them after the last step; 0 for none.
        evaluation_images: images of the validation split that are measured, evenly spread over it; all where None.
        early_stop: evaluations in a row without a better value after which the run ends; 0 for none.
    """

    warmup_steps: int = 2000
    decay: Literal["cosine", "flat_cosine", "step", "constant"] = "cosine"
    decay_fraction: float = 0.5
    milestones: Sequence[int] | None = None
    final_lr_ratio: float = 0.02
    no_aug_fraction: float | None = None
    no_aug_epochs: int | None = None
    mixing_epochs: tuple[int, int] | None = None
    ema_warmup: int | None = None
    evaluations: int = 10
    evaluation_images: int | None = None
    early_stop: int = 0

    def __post_init__(self) -> None:
        _check_finite("train.schedule", vars(self))
        _check_range(
            "train.schedule",
            vars(self),
            positive=("evaluation_images",),
            least=("evaluations", "warmup_steps", "no_aug_epochs", "ema_warmup", "early_stop"),
            most={"evaluations": MAX_EVALUATIONS},
            fractions=("decay_fraction", "final_lr_ratio", "no_aug_fraction"),
        )
        if self.milestones is not None:
            object.__setattr__(self, "milestones", tuple(self.milestones))
            if list(self.milestones) != sorted(set(self.milestones)) or min(self.milestones, default=0) < 1:
                raise ValueError(
                    f"train.schedule.milestones are rising numbers of epochs, at least 1, not {list(self.milestones)}"
                )
            if self.decay not in ("step", "flat_cosine"):
                raise ValueError(
                    f"train.schedule.milestones are for train.schedule.decay step and flat_cosine, not {self.decay}; "
                    "give null, or step"
                )
            if self.decay == "flat_cosine" and len(self.milestones) != 1:
                raise ValueError(
                    "train.schedule.milestones of flat_cosine is one epoch, after which the learning rate falls, not "
                    f"{list(self.milestones)}"
                )
        first, last = self.mixing_epochs or (0, 0)
        if not 0 <= first <= last:
            raise ValueError(
                "train.schedule.mixing_epochs are the epochs from which on and until which images are mixed, as in "
                f"[4, 64], not {list(self.mixing_epochs or ())}"
            )
        if self.no_aug_fraction is not None and self.no_aug_epochs is not None:
            raise ValueError(
                "train.schedule.no_aug_fraction and train.schedule.no_aug_epochs both say where strong augmentation "
                "ends; give one, and null for the other"
            )


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """The images of a step.

    Args:
        accumulate_steps: batches that a step's images are split into, for less memory.
        multi_scale: images are trained at sizes from 1 - x to 1 + x times the image size, in steps of 32 pixels; 0
            for one size.
        group_aspect_ratios: images of a step have like aspect ratios, so that there is less padding: 2 groups, wide and
            tall, as in detectron2 and mmdetection; 8 groups, as in torchvision; 0 for none. All images of a step are
            padded to one size, so that this holds for all processes and parts together.
        skip_empty_images: images without any annotation are left out, as in torchvision's and mmdetection's training.
        activation_checkpointing: blocks of the network keep their inputs alone and are computed again in the backward
            pass: less memory, more time, the same gradient.
    """

    accumulate_steps: int = 1
    multi_scale: float = 0.25
    group_aspect_ratios: int = 0
    skip_empty_images: bool = False
    activation_checkpointing: bool = False

    def __post_init__(self) -> None:
        _check_finite("train.batches", vars(self))
        _check_range("train.batches", vars(self), positive=("accumulate_steps",), below_one=("multi_scale",))
        if self.group_aspect_ratios not in ASPECT_RATIO_GROUPS:
            raise ValueError(f"train.batches.group_aspect_ratios is 0, 2 or 8, not {self.group_aspect_ratios}")


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """Device, precision and processes that compute.

    Args:
        precision: bfloat16 runs the network under autocast; weights, boxes and losses stay float32. auto takes it where
            the device multiplies it natively; what was taken is stored with the run.
        compile: backbone and necks by ``torch.compile``, which takes a minute or two for each size of images: ``on``,
            ``off``, or ``auto``, which tries in long runs, and goes on with what is faster.
        device: cpu, cuda, cuda:1 ...; auto takes a GPU where there is one.
        workers: processes that read images; where None, none on a CPU and one per core, at most 8, beside a GPU.
        seed: of weights, order, augmentation and noise.
        sync_norms: batch norms take their statistics from the images of all processes, not of each by itself.
        save_interval: longest time between two checkpoints, like 30s or 5m; the first one comes within a minute.
        deterministic: a run that is repeated ends with the same weights, bit by bit, on as many threads of the same
            kind of machine; on a GPU, slower, and but for the operations that torch warns of.
        sharded: each of several processes holds a part of the parameters, gradients and moments of the optimizer, not
            all of them (FSDP2): less memory, more traffic between processes.
        processes: that train together on this machine, with a GPU or a part of the cores each, where torchrun has not
            started several. On CPUs two use the cores better than one, most of all with small networks.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    device: str = "auto"
    workers: int | None = None
    seed: int = 0
    sync_norms: bool = False
    save_interval: str = "5m"
    deterministic: bool = False
    sharded: bool = False
    processes: int = 1

    def __post_init__(self) -> None:
        seconds(self.save_interval, "train.runtime.save_interval")
        _check_range("train.runtime", vars(self), least=("workers", "seed"), positive=("processes",))
        _check_range("train.runtime", vars(self), most={"workers": MAX_WORKERS, "processes": MAX_WORKERS})


_OPTIMIZER, _SCHEDULE, _BATCHES, _RUNTIME = OptimizerOptions(), ScheduleOptions(), BatchOptions(), RuntimeOptions()


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Training of a detector.

    Args:
        epochs: passes over the training images.
        steps: optimizer steps, instead of epochs.
        budget: time for all of training, its evaluations included, instead of epochs: 45s, 10m, 2h. The speed is
            measured, and the number of steps that follows from it changes as the speed does.
        batch_size: images per optimizer step, over all processes and accumulated batches.
        lr: learning rate at its highest.
        backbone_lr: learning rate of the backbone; ``lr`` where None.
        ema_decay: decay of the moving average of the weights; lower at first, see ``schedule.ema_warmup``. 0 for none.
        freeze: slots whose parts stay as they are, their norms' statistics too: ``backbone``, ``neck``, ``head``.
        optimizer: the optimizer, and which parameters decay.
        schedule: changes over training, and evaluations on the way.
        batches: the images of a step.
        runtime: where and how numbers are computed.
    """

    epochs: int = 72
    steps: int | None = None
    budget: str | None = None
    batch_size: int = 16
    lr: float = 1e-4
    backbone_lr: float | None = None
    ema_decay: float = 0.9999
    freeze: tuple[Slot, ...] = ()
    optimizer: OptimizerOptions = _OPTIMIZER
    schedule: ScheduleOptions = _SCHEDULE
    batches: BatchOptions = _BATCHES
    runtime: RuntimeOptions = _RUNTIME

    def __post_init__(self) -> None:
        _check_finite("train", vars(self))
        positive = ("epochs", "steps", "batch_size", "lr", "backbone_lr")
        _check_range("train", vars(self), positive=positive, below_one=("ema_decay",), most={"batch_size": MAX_BATCH})
        if self.batch_size % self.batches.accumulate_steps:
            raise ValueError(
                f"train.batch_size is a multiple of train.batches.accumulate_steps, and {self.batch_size} is not one "
                f"of {self.batches.accumulate_steps}"
            )
        if self.steps is not None and self.budget is not None:
            raise ValueError("train.steps and train.budget both say how long to train; give one")
        if self.budget is not None:
            seconds(self.budget)
        last = max(self.schedule.milestones or (0,))
        if last >= self.epochs:
            raise ValueError(
                f"train.schedule.milestones come before the end of train.epochs, {self.epochs}, and {last} does not; "
                "give both, or --train.steps, which changes the milestones in proportion"
            )
        if max(self.schedule.mixing_epochs or (0,)) > self.epochs:
            raise ValueError(
                f"train.schedule.mixing_epochs end within train.epochs, {self.epochs}, and "
                f"{list(self.schedule.mixing_epochs or ())} do not; give both, or --train.steps, which changes them in "
                "proportion"
            )
        if (self.schedule.no_aug_epochs or 0) > self.epochs:
            raise ValueError(
                f"train.schedule.no_aug_epochs is at most train.epochs, {self.epochs}, "
                f"not {self.schedule.no_aug_epochs}"
            )


def training_sizes(image_size: int, multi_scale: float) -> tuple[int, ...]:
    """List the sizes that training chooses from, evenly: multiples of 32, the image size itself three times.

    Source: the sizes of lyuwenyu/RT-DETR 068dfde for 640 pixels and 0.25: 480, 512, ... 800.
    """
    if multi_scale == 0:
        return (image_size,)
    step = 32
    below = int(image_size * multi_scale) // step
    sizes = [image_size + i * step for i in range(-below, below + 1) if image_size + i * step >= step]
    return tuple(sorted([*sizes, image_size, image_size]))
