"""Options of training: budgets, image sizes, and values that are refused."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from boxwright.compose.train_options import (
    BatchOptions,
    OptimizerOptions,
    RuntimeOptions,
    ScheduleOptions,
    TrainOptions,
    seconds,
    training_sizes,
)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("45s", 45.0), ("10m", 600.0), ("2h", 7200.0), ("1.5h", 5400.0), ("0.5s", 0.5), (" 10m ", 600.0)],
)
def test_budgets(budget: str, expected: float) -> None:
    assert seconds(budget) == expected


@pytest.mark.parametrize(
    "budget", ["", "10", "m", "10 m", "10min", "-5m", "0s", "0.0h", "1.h", "1e3s", "ten m", "10m5s"]
)
def test_budgets_that_are_refused(budget: str) -> None:
    with pytest.raises(
        ValueError, match=r"^train\.budget is a number and s, m or h, like 45s, 10m or 2h, not "
    ) as caught:
        seconds(budget)
    assert repr(budget) in str(caught.value)
    with pytest.raises(ValueError, match=r"train\.budget"):
        TrainOptions(budget=budget)


def test_the_sizes_of_the_published_models() -> None:
    published = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
    assert training_sizes(640, 0.25) == published


@pytest.mark.parametrize(
    ("image_size", "multi_scale", "expected"),
    [
        (256, 0.25, (192, 224, 256, 256, 256, 288, 320)),
        (64, 0.5, (32, 64, 64, 64, 96)),
        (64, 0.99, (32, 64, 64, 64, 96)),
        (64, 0.1, (64, 64, 64)),
        (320, 0.0, (320,)),
    ],
)
def test_sizes_are_multiples_of_32_around_the_image_size(
    image_size: int, multi_scale: float, expected: tuple[int, ...]
) -> None:
    assert training_sizes(image_size, multi_scale) == expected


REFUSED: list[tuple[type[Any], dict[str, Any], str]] = [
    (TrainOptions, {"lr": 0.0}, r"^train\.lr is greater than 0, not 0\.0$"),
    (TrainOptions, {"lr": float("nan")}, r"^train\.lr is a finite number, not nan$"),
    (TrainOptions, {"lr": float("inf")}, r"^train\.lr is a finite number, not inf$"),
    (TrainOptions, {"backbone_lr": -1.0}, r"^train\.backbone_lr is greater than 0, not -1\.0$"),
    (TrainOptions, {"epochs": 0}, r"^train\.epochs is greater than 0, not 0$"),
    (TrainOptions, {"steps": -3}, r"^train\.steps is greater than 0, not -3$"),
    (ScheduleOptions, {"evaluations": -1}, r"^train\.schedule\.evaluations is at least 0, not -1$"),
    (TrainOptions, {"ema_decay": 1.0}, r"^train\.ema_decay is less than 1$"),
    (TrainOptions, {"steps": 10, "budget": "10m"}, r"^train\.steps and train\.budget both say how long .*; give one$"),
    (
        TrainOptions,
        {"batch_size": 6, "batches": BatchOptions(accumulate_steps=4)},
        r"^train\.batch_size is a multiple of train\.batches\.accumulate_steps, and 6 is not one of 4$",
    ),
    (
        TrainOptions,
        {"epochs": 11, "schedule": ScheduleOptions(decay="step", milestones=[8, 11])},
        r"^train\.schedule\.milestones come before the end of train\.epochs, 11, and 11 does not; give both, or --",
    ),
    (
        TrainOptions,
        {"epochs": 3, "schedule": ScheduleOptions(no_aug_epochs=4)},
        r"^train\.schedule\.no_aug_epochs is at most train\.epochs, 3, not 4$",
    ),
    (OptimizerOptions, {"weight_decay": -0.1}, r"^train\.optimizer\.weight_decay is at least 0, not -0\.1$"),
    (
        OptimizerOptions,
        {"max_grad_norm": float("nan")},
        r"^train\.optimizer\.max_grad_norm is a finite number, not nan$",
    ),
    (OptimizerOptions, {"momentum": 1.0}, r"^train\.optimizer\.momentum is less than 1$"),
    (OptimizerOptions, {"momentum": -0.1}, r"^train\.optimizer\.momentum is between 0 and 1, not -0\.1$"),
    (
        OptimizerOptions,
        {"lr_factors": {"a": 0.0}},
        r"^train\.optimizer\.lr_factors\.a is a finite number greater than 0",
    ),
    (ScheduleOptions, {"decay_fraction": 1.5}, r"^train\.schedule\.decay_fraction is between 0 and 1, not 1\.5$"),
    (ScheduleOptions, {"no_aug_fraction": -0.1}, r"^train\.schedule\.no_aug_fraction is between 0 and 1, not -0\.1$"),
    (ScheduleOptions, {"no_aug_epochs": -1}, r"^train\.schedule\.no_aug_epochs is at least 0, not -1$"),
    (ScheduleOptions, {"ema_warmup": -1}, r"^train\.schedule\.ema_warmup is at least 0, not -1$"),
    (
        ScheduleOptions,
        {"no_aug_epochs": 2, "no_aug_fraction": 0.1},
        r"^train\.schedule\.no_aug_fraction and .* give one",
    ),
    (
        ScheduleOptions,
        {"milestones": [8]},
        r"^train\.schedule\.milestones are for train\.schedule\.decay step and flat_cosine, not cosine; give null, or",
    ),
    (
        ScheduleOptions,
        {"decay": "flat_cosine", "milestones": [8, 11]},
        r"^train\.schedule\.milestones of flat_cosine is one epoch, after which .* falls, not \[8, 11\]$",
    ),
    (
        ScheduleOptions,
        {"mixing_epochs": (6, 4)},
        r"^train\.schedule\.mixing_epochs are the epochs from which on .*, as in \[4, 64\], not \[6, 4\]$",
    ),
    (ScheduleOptions, {"mixing_epochs": (-1, 4)}, r"^train\.schedule\.mixing_epochs .*, not \[-1, 4\]$"),
    (
        TrainOptions,
        {"epochs": 60, "schedule": ScheduleOptions(mixing_epochs=(4, 64))},
        r"^train\.schedule\.mixing_epochs end within train\.epochs, 60, and \[4, 64\] do not; give both, or --train\.",
    ),
    (
        ScheduleOptions,
        {"decay": "step", "milestones": [8, 8]},
        r"^train\.schedule\.milestones are rising .* not \[8, 8\]$",
    ),
    (
        ScheduleOptions,
        {"decay": "step", "milestones": [11, 8]},
        r"^train\.schedule\.milestones are rising .*\[11, 8\]$",
    ),
    (ScheduleOptions, {"decay": "step", "milestones": [0]}, r"^train\.schedule\.milestones .* at least 1, not \[0\]$"),
    (ScheduleOptions, {"decay": "step", "milestones": []}, r"^train\.schedule\.milestones .* at least 1, not \[\]$"),
    (BatchOptions, {"multi_scale": 1.0}, r"^train\.batches\.multi_scale is less than 1$"),
    (BatchOptions, {"accumulate_steps": 0}, r"^train\.batches\.accumulate_steps is greater than 0, not 0$"),
    (BatchOptions, {"group_aspect_ratios": 3}, r"^train\.batches\.group_aspect_ratios is 0, 2 or 8, not 3$"),
    (RuntimeOptions, {"workers": -1}, r"^train\.runtime\.workers is at least 0, not -1$"),
    (RuntimeOptions, {"seed": -1}, r"^train\.runtime\.seed is at least 0, not -1$"),
]


@pytest.mark.parametrize(("kind", "options", "message"), REFUSED)
def test_values_that_are_refused(kind: type[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    OptimizerOptions(weight_decay=0.0, max_grad_norm=0.0, momentum=0.0)
    ScheduleOptions(warmup_steps=0, decay_fraction=0.0, final_lr_ratio=0.0, no_aug_fraction=0.0)
    ScheduleOptions(decay_fraction=1.0, final_lr_ratio=1.0, no_aug_fraction=1.0, ema_warmup=0)
    BatchOptions(multi_scale=0.0)
    RuntimeOptions(workers=0, seed=0)
    TrainOptions(ema_decay=0.0, epochs=3, schedule=ScheduleOptions(no_aug_epochs=3))
    TrainOptions(epochs=12, schedule=ScheduleOptions(decay="step", milestones=[8, 11]))


def test_options_are_equal_by_value() -> None:
    """Lists from a recipe are tuples inside."""
    first, second = (TrainOptions(schedule=ScheduleOptions(decay="step", milestones=[8, 11])) for _ in range(2))
    assert first == second
    assert first.schedule.milestones == (8, 11)


def test_there_are_at_most_twelve_options_in_each_group() -> None:
    groups = (TrainOptions, OptimizerOptions, ScheduleOptions, BatchOptions, RuntimeOptions)
    assert max(len(fields(group)) for group in groups) == 12
