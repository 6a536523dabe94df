"""Options of training: budgets, image sizes, and values that are refused."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.compose.train_options import TrainOptions, seconds, training_sizes


@pytest.mark.parametrize(
    ("budget", "expected"),
    [("45s", 45.0), ("10m", 600.0), ("2h", 7200.0), ("1.5h", 5400.0), ("0.5s", 0.5), (" 10m ", 600.0)],
)
def test_budgets(budget: str, expected: float) -> None:
    assert seconds(budget) == expected


@pytest.mark.parametrize(
    "budget", ["", "10", "m", "10 m", "10min", "-5m", "0s", "0.0h", "1.h", "1e3s", "ten m", "10m5s"]
)
def test_what_is_no_budget(budget: str) -> None:
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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": 0.0}, r"^train\.lr is greater than 0, not 0\.0$"),
        ({"lr": float("nan")}, r"^train\.lr is a finite number, not nan$"),
        ({"lr": float("inf")}, r"^train\.lr is a finite number, not inf$"),
        ({"backbone_lr": -1.0}, r"^train\.backbone_lr is greater than 0, not -1\.0$"),
        ({"epochs": 0}, r"^train\.epochs is greater than 0, not 0$"),
        ({"steps": -3}, r"^train\.steps is greater than 0, not -3$"),
        ({"evaluations": 0}, r"^train\.evaluations is greater than 0, not 0$"),
        ({"weight_decay": -0.1}, r"^train\.weight_decay is at least 0, not -0\.1$"),
        ({"max_grad_norm": float("nan")}, r"^train\.max_grad_norm is a finite number, not nan$"),
        ({"workers": -1}, r"^train\.workers is at least 0, not -1$"),
        ({"seed": -1}, r"^train\.seed is at least 0, not -1$"),
        ({"decay_fraction": 1.5}, r"^train\.decay_fraction is between 0 and 1, not 1\.5$"),
        ({"no_aug_fraction": -0.1}, r"^train\.no_aug_fraction is between 0 and 1, not -0\.1$"),
        ({"ema": 1.0}, r"^train\.ema is less than 1$"),
        ({"multi_scale": 1.0}, r"^train\.multi_scale is less than 1$"),
        ({"momentum": 1.0}, r"^train\.momentum is less than 1$"),
        ({"momentum": -0.1}, r"^train\.momentum is between 0 and 1, not -0\.1$"),
        ({"batch_size": 6, "accumulate": 4}, r"^train\.batch_size is a multiple of train\.accumulate, and 6 .* of 4$"),
        ({"steps": 10, "budget": "10m"}, r"^train\.steps and train\.budget both say how long to train; give one$"),
    ],
)
def test_values_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOptions(**options)


def test_the_ends_of_the_ranges_are_allowed() -> None:
    TrainOptions(weight_decay=0.0, max_grad_norm=0.0, warmup_steps=0, workers=0, seed=0)
    TrainOptions(decay_fraction=0.0, final_lr_ratio=0.0, no_aug_fraction=0.0, ema=0.0, multi_scale=0.0)
    TrainOptions(decay_fraction=1.0, final_lr_ratio=1.0, no_aug_fraction=1.0)
