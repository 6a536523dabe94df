"""What changes over training, at steps that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from boxwright.compose.train_options import TrainOptions
from boxwright.training.schedule import Schedule


def schedule(steps: int, *, warmup_steps: int = 0, decay_fraction: float = 0.0, **options: Any) -> Schedule:
    return Schedule(steps, TrainOptions(warmup_steps=warmup_steps, decay_fraction=decay_fraction, **options), 100)


def test_warm_up_plateau_and_half_a_cosine() -> None:
    factor = schedule(1000, warmup_steps=50, decay_fraction=0.4, final_lr_ratio=0.1).lr_factor
    assert factor(0) == pytest.approx(1 / 51)
    assert factor(24) == pytest.approx(25 / 51)
    assert factor(49) == pytest.approx(50 / 51)
    assert all(factor(step) == 1.0 for step in range(50, 601))
    assert factor(700) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert factor(800) == pytest.approx(0.1 + 0.9 / 2)
    assert factor(900) == pytest.approx(0.1 + 0.9 * (1 - math.sqrt(0.5)) / 2)
    assert 0.1 < factor(999) < 0.1 + 1e-4


def test_the_rate_rises_then_falls() -> None:
    factors = [
        schedule(400, warmup_steps=20, decay_fraction=0.5, final_lr_ratio=0.02).lr_factor(step) for step in range(400)
    ]
    assert factors[:21] == sorted(factors[:21])
    assert factors[200:] == sorted(factors[200:], reverse=True)
    assert (min(factors[200:]), max(factors)) == (pytest.approx(0.02, abs=1e-3), 1.0)


def test_warm_up_takes_at_most_a_tenth() -> None:
    factor = schedule(100, warmup_steps=2000).lr_factor
    assert [factor(step) for step in (0, 9, 10, 99)] == [pytest.approx(1 / 11), pytest.approx(10 / 11), 1.0, 1.0]
    assert schedule(9, warmup_steps=2000).lr_factor(0) == 1.0


def test_neither_warm_up_nor_decay() -> None:
    assert {schedule(30, final_lr_ratio=0.0).lr_factor(step) for step in range(30)} == {1.0}


def test_a_step_falls_at_once() -> None:
    factor = schedule(300, warmup_steps=10, decay_fraction=1 / 3, decay="step", final_lr_ratio=0.1).lr_factor
    assert [factor(step) for step in (10, 199, 200, 299)] == [1.0, 1.0, pytest.approx(0.1), pytest.approx(0.1)]
    assert schedule(300, decay="step", final_lr_ratio=0.1).lr_factor(299) == 1.0


def test_decay_from_the_first_step_on() -> None:
    factor = schedule(10, decay_fraction=1.0, final_lr_ratio=0.0).lr_factor
    assert (factor(0), factor(5)) == (1.0, pytest.approx(0.5))
    assert 0 < factor(9) < 0.03


@pytest.mark.parametrize(("share", "first"), [(0.1, 900), (0.0, 1000), (1.0, 0), (0.25, 750)])
def test_the_stage_with_light_augmentation(share: float, first: int) -> None:
    assert schedule(1000, no_aug_fraction=share).light_from == first


@pytest.mark.parametrize(
    ("steps", "first"),
    [
        (1000, 700),  # 12 passes over 100 images, 4 at a time, are 300 steps
        (10_000, 9000),  # at least a tenth
        (200, 0),  # at most all
    ],
)
def test_without_a_share_the_last_stage_is_twelve_passes_long(steps: int, first: int) -> None:
    assert Schedule(steps, TrainOptions(batch_size=4, no_aug_fraction=None), 100).light_from == first


def test_evaluations_are_even_and_the_last_step_is_evaluated() -> None:
    one = schedule(1000)
    assert [s + 1 for s in range(1000) if one.evaluates_after(s, 4)] == [250, 500, 750, 1000]
    for steps in (1, 7, 10, 99, 100):
        for evaluations in (1, 2, 3, 7, 10, 200):
            after = [s + 1 for s in range(steps) if schedule(steps).evaluates_after(s, evaluations)]
            assert len(after) == min(steps, evaluations)
            assert after[-1] == steps
            gaps = {later - earlier for earlier, later in zip([0, *after], after, strict=False)}
            assert max(gaps) - min(gaps) <= 1


def test_the_average_is_short_at_first() -> None:
    decay = schedule(1000, ema=0.99).ema_decay
    assert [decay(step) for step in (0, 1, 8)] == [1 / 10, 2 / 11, 0.5]
    assert decay(889) == pytest.approx(890 / 899)
    assert decay(890) == pytest.approx(0.99)
    assert decay(5000) == 0.99
