"""The changes over training, at steps that can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from boxwright.compose.train_options import ScheduleOptions, TrainOptions
from boxwright.data.loading.sampler import AugmentationStage
from boxwright.training.schedule import Schedule

RUN = ("epochs", "batch_size", "ema_decay")
"""Options that are not of the schedule by itself."""


def schedule(steps: int, *, warmup_steps: int = 0, decay_fraction: float = 0.0, **options: Any) -> Schedule:
    changes = {"warmup_steps": warmup_steps, "decay_fraction": decay_fraction, **options}
    chosen = ScheduleOptions(**{name: value for name, value in changes.items() if name not in RUN})
    run = {name: value for name, value in changes.items() if name in RUN}
    return Schedule(steps, TrainOptions(schedule=chosen, **run), 100)


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


def test_the_rate_falls_at_every_milestone() -> None:
    """Epochs 8 and 11 of 12, whatever the length of the run."""
    options = {"epochs": 12, "decay": "step", "milestones": (8, 11), "final_lr_ratio": 0.1}
    for steps in (1200, 120, 24_000):
        factor = schedule(steps, **options).lr_factor
        first, second = steps * 8 // 12, steps * 11 // 12
        assert [factor(step) for step in (0, first - 1)] == [1.0, 1.0]
        assert [factor(step) for step in (first, second - 1)] == pytest.approx([0.1, 0.1])
        assert [factor(step) for step in (second, steps - 1)] == pytest.approx([0.01, 0.01])


def test_milestones_replace_the_fraction() -> None:
    factor = schedule(100, epochs=10, decay="step", decay_fraction=0.5, milestones=(9,), final_lr_ratio=0.1).lr_factor
    assert (factor(89), factor(90)) == (1.0, pytest.approx(0.1))


def test_a_constant_rate_rises_and_stays() -> None:
    factor = schedule(100, warmup_steps=4, decay="constant", decay_fraction=0.5, final_lr_ratio=0.0).lr_factor
    assert [factor(step) for step in (0, 3, 4, 50, 99)] == [pytest.approx(0.2), pytest.approx(0.8), 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("epochs", "flat", "no_aug", "steps", "expected"),
    [
        (132, 64, 12, 1320, {690: 0.99022933, 870: 0.819208878, 1199: 0.500003934, 1200: 0.5, 1319: 0.5}),
        (58, 29, 8, 580, {340: 0.933262968, 499: 0.500027975, 500: 0.5, 579: 0.5}),
        (120, 64, 3, 1200, {690: 0.989100246, 870: 0.801494655, 1169: 0.500004392, 1170: 0.5, 1199: 0.5}),
    ],
    ids=["deim_dfine_s", "deim_dfine_l", "deim_rtdetrv2_r18"],
)
def test_flat_cosine_of_the_authors_of_deim(
    epochs: int, flat: int, no_aug: int, steps: int, expected: dict[int, float]
) -> None:
    """Measured with flat_cosine_schedule of ShihuaHuang95/DEIM a9aa4ad, at ten steps an epoch."""
    factor = schedule(
        steps,
        epochs=epochs,
        warmup_steps=50,
        decay="flat_cosine",
        milestones=(flat,),
        final_lr_ratio=0.5,
        no_aug_epochs=no_aug,
    ).lr_factor
    assert all(factor(step) == 1.0 for step in range(50, flat * 10 + 1))
    assert {step: factor(step) for step in expected} == pytest.approx(expected, abs=1e-9)
    assert [factor(step) for step in (0, 24, 49)] == pytest.approx([(1 / 51) ** 2, (25 / 51) ** 2, (50 / 51) ** 2])


def test_flat_cosine_in_runs_of_any_length() -> None:
    """In proportion to the steps; from the fraction on where no epoch is given; to the end where nothing is plain."""
    options = {"epochs": 132, "decay": "flat_cosine", "milestones": (64,), "final_lr_ratio": 0.5, "no_aug_epochs": 12}
    long, short = schedule(13_200, **options).lr_factor, schedule(132, **options).lr_factor
    assert [short(step) for step in range(0, 132, 4)] == pytest.approx([long(100 * s) for s in range(0, 132, 4)])
    half = schedule(100, decay="flat_cosine", decay_fraction=0.5, no_aug_fraction=0.2, final_lr_ratio=0.0).lr_factor
    assert [half(step) for step in (0, 50, 65, 80, 99)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    plain = schedule(100, decay="flat_cosine", decay_fraction=0.5, no_aug_fraction=1.0, final_lr_ratio=0.0).lr_factor
    assert [plain(step) for step in (0, 50, 75)] == pytest.approx([1.0, 1.0, 0.5])
    flat = schedule(100, decay="flat_cosine", decay_fraction=0.0, no_aug_fraction=0.2, final_lr_ratio=0.0).lr_factor
    assert {flat(step) for step in range(100)} == {1.0}


def test_stages_of_the_authors_of_deim() -> None:
    """Epochs 4 to 64 of 132 with mosaics, then single images, and twelve that are only flipped; at any length."""
    for steps in (132, 1320):
        stage = schedule(steps, epochs=132, mixing_epochs=(4, 64), no_aug_epochs=12).stage
        per = steps // 132
        borders = {0: "FLIPPED", 4: "MIXED", 64: "STRONG", 120: "LAST"}
        for first, name in borders.items():
            assert stage(first * per) is AugmentationStage[name]
        assert [stage(first * per - 1).name for first in (4, 64, 120, 132)] == list(borders.values())


def test_images_are_mixed_in_the_first_half() -> None:
    stage = schedule(100, no_aug_fraction=0.2).stage
    assert [stage(step).name for step in (0, 49, 50, 79, 80)] == ["MIXED", "MIXED", "STRONG", "STRONG", "LAST"]
    assert schedule(100, no_aug_fraction=1.0).stage(0) is AugmentationStage.LAST


def test_decay_from_the_first_step_on() -> None:
    factor = schedule(10, decay_fraction=1.0, final_lr_ratio=0.0).lr_factor
    assert (factor(0), factor(5)) == (1.0, pytest.approx(0.5))
    assert 0 < factor(9) < 0.03


@pytest.mark.parametrize(("epochs", "first"), [(2, 600), (0, 1000), (5, 0), (1, 800)])
def test_the_last_stage_in_epochs(epochs: int, first: int) -> None:
    assert schedule(1000, epochs=5, no_aug_epochs=epochs).no_aug_from == first


@pytest.mark.parametrize(("fraction", "first"), [(0.1, 900), (0.0, 1000), (1.0, 0), (0.25, 750)])
def test_the_stage_with_light_augmentation(fraction: float, first: int) -> None:
    assert schedule(1000, no_aug_fraction=fraction).no_aug_from == first


@pytest.mark.parametrize(
    ("steps", "first"),
    [
        (1000, 700),  # 12 passes over 100 images, 4 at a time, are 300 steps
        (10_000, 9000),  # at least a tenth
        (200, 0),  # at most all
    ],
)
def test_without_a_fraction_the_last_stage_is_twelve_passes_long(steps: int, first: int) -> None:
    assert Schedule(steps, TrainOptions(batch_size=4), 100).no_aug_from == first


def test_evaluations_are_even_and_the_last_step_is_evaluated() -> None:
    one = schedule(1000)
    assert [s + 1 for s in range(1000) if one.evaluates_between(s, s + 1, 4)] == [250, 500, 750, 1000]
    for steps in (1, 7, 10, 99, 100):
        for evaluations in (1, 2, 3, 7, 10, 200):
            after = [s + 1 for s in range(steps) if schedule(steps).evaluates_between(s, s + 1, evaluations)]
            assert len(after) == min(steps, evaluations)
            assert after[-1] == steps
            gaps = {later - earlier for earlier, later in zip([0, *after], after, strict=False)}
            assert max(gaps) - min(gaps) <= 1


def test_the_average_is_short_at_first() -> None:
    decay = schedule(1000, ema_decay=0.99).ema_decay
    assert [decay(step) for step in (0, 1, 8)] == [1 / 10, 2 / 11, 0.5]
    assert decay(889) == pytest.approx(890 / 899)
    assert decay(890) == pytest.approx(0.99)
    assert decay(5000) == 0.99


def test_the_average_rises_as_the_authors_of_rtdetr_have_it() -> None:
    """Their counter is at 1 in the first step."""
    decay = schedule(10_000, ema_decay=0.9999, ema_warmup=2000).ema_decay
    for step in (0, 1, 999, 1999, 9999):
        assert decay(step) == pytest.approx(0.9999 * (1 - math.exp(-(step + 1) / 2000)), rel=1e-12)
    assert {schedule(100, ema_decay=0.99, ema_warmup=0).ema_decay(step) for step in (0, 1, 50)} == {0.99}
