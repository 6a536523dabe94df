"""From time to steps, with a clock that the test winds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
import torch

from boxwright.compose.train_options import TrainOptions
from boxwright.structures import Batch, Targets
from boxwright.training import budget
from boxwright.training.budget import Plan, measure_step, plan

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def fractions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the fractions that the figures below are worked out with."""
    monkeypatch.setattr(budget, "RESERVE", 0.04)
    monkeypatch.setattr(budget, "EVALUATION_SHARE", 0.08)


@pytest.mark.parametrize(
    ("available", "step", "evaluation", "targets", "expected"),
    [
        # 4 % in reserve leaves 576 s; 8 % of that are 46 s, room for 7 evaluations; (576 - 42) / 0.9 = 593.3
        (600.0, 0.9, 6.0, 10, Plan(593, 7)),
        (600.0, 0.9, 6.0, 3, Plan(620, 3)),
        (100.0, 1.0, 0.0, 10, Plan(96, 10)),
        (100.0, 1.0, 9.0, 0, Plan(96, 0)),
        # Not even one evaluation is cheap; the last step is evaluated all the same: (96 - 50) / 0.5 = 92
        (100.0, 0.5, 50.0, 10, Plan(92, 1)),
    ],
)
def test_plans_by_hand(available: float, step: float, evaluation: float, targets: int, expected: Plan) -> None:
    assert plan(available, step, evaluation, targets) == expected


def test_a_plan_fits_and_wastes_less_than_a_step() -> None:
    for available in (45.0, 200.0, 7200.0):
        for step, evaluation in ((0.1, 0.0), (0.73, 2.5), (3.9, 1.0)):
            actual = plan(available, step, evaluation, 10)
            used = actual.steps * step + actual.evaluations * evaluation
            assert 0.96 * available - step < used <= 0.96 * available


@pytest.mark.parametrize("available", [9.0, 0.0, -3.0])
def test_too_little_time(available: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^train\.budget is too small: {available:.0f} s are left, a step takes 1\.00 s"
    ):
        plan(available, 1.0, 0.0, 1)


class Clock:
    """Time passes in steps only: (size / 64)² seconds each."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sizes: list[int] = []

    def __call__(self) -> float:
        return self.now

    def step(self, _detector: Any, _model: Any, _optimizer: Any, batch: Batch, *_: Any) -> None:
        self.sizes.append(batch.images.shape[-1])
        self.now += (batch.images.shape[-1] / 64) ** 2


def batches(size: int) -> Iterator[Batch]:
    return repeat(Batch(torch.zeros(1, 3, size, size), None, [], [], []))


@pytest.mark.parametrize(("is_enough", "measured"), [(False, {32, 64, 96}), (True, {96})])
def test_a_step_is_averaged_over_the_sizes(
    monkeypatch: pytest.MonkeyPatch, make_detector: Any, is_enough: bool, measured: set[int]
) -> None:
    """Sizes that there was no time for are estimated from their area, so that both come out the same."""
    clock = Clock()
    monkeypatch.setattr(budget.time, "perf_counter", clock)
    monkeypatch.setattr(budget, "train_step", clock.step)
    actual = measure_step(
        make_detector(), batches, (32, 64, 64, 64, 96), TrainOptions(), CPU, is_enough=lambda: is_enough
    )
    assert actual == pytest.approx((0.25 + 3 * 1 + 2.25) / 5)
    assert set(clock.sizes) == measured
    assert clock.sizes[0] == 96


def test_measuring_leaves_the_detector_as_it_is(make_detector: Any, make_targets: Any) -> None:
    detector = make_detector().train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    batch = Batch(torch.rand(2, 3, 64, 64), None, make_targets([2, 1]), [], [])
    taken = measure_step(detector, lambda _size: repeat(batch), (64,), TrainOptions(), CPU, is_enough=lambda: True)
    assert taken > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.state_dict().items())
    assert all(parameter.grad is None for parameter in detector.parameters())


def test_a_head_that_grows_is_measured_as_if_it_were_trained(
    monkeypatch: pytest.MonkeyPatch, make_detector: Any, make_targets: Any
) -> None:
    seen: list[int] = []

    def step(_detector: Any, _model: Any, _optimizer: Any, batch: Batch, *_: Any) -> None:
        seen.extend(len(target.labels) for target in batch.targets)

    def twice(_head: Any, targets: list[Targets]) -> list[Targets]:
        return [target._replace(labels=target.labels.repeat(2)) for target in targets]

    detector = make_detector()
    monkeypatch.setattr(type(detector.head), "worst_case_targets", twice, raising=False)
    monkeypatch.setattr(budget, "train_step", step)
    batch = Batch(torch.zeros(2, 3, 64, 64), None, make_targets([2, 1]), [], [])
    measure_step(detector, lambda _size: repeat(batch), (64,), TrainOptions(), CPU, is_enough=lambda: True)
    assert seen == [4, 2]
