"""Advice to train with activation checkpointing: measured in smaller steps, only where it helps."""

from __future__ import annotations

from typing import Any

import pytest

from boxwright.compose.recipe import Recipe
from boxwright.compose.recipes import resolve
from boxwright.workflows import check_fit as module
from boxwright.workflows.check_fit import check_fit
from boxwright.workflows.fit_trial import Stage, Trial, run_trial
from boxwright.workflows.memory_limits import FreeMemory
from boxwright.workflows.worst_step import TrialOutcome
from object_records import make_record, of_records

GIB = 2**30
LINE = "--train.batches.activation_checkpointing true: "


def advice(monkeypatch: pytest.MonkeyPatch, per_image: float, **options: Any) -> list[str]:
    """Advice where an image takes 1 GiB without and ``per_image`` GiB with checkpointing, besides one of the network.

    Of 16 images at once 17.6 GiB with the margin, where there are 8.
    """

    def run(trial: Trial) -> TrialOutcome:
        is_on = Recipe.from_dict(trial.recipe).train.batches.activation_checkpointing
        each = per_image if is_on else 1.0
        return TrialOutcome(tuple(Stage(n, 1.0, int(GIB * (1 + n * each))) for n in range(3)), None, None)

    monkeypatch.setattr(module, "run_in_process", run)
    overrides = {"train.batch_size": 16, "train.runtime.device": "cpu", **options}
    data = of_records([make_record((1, 1), [(0.0, 0.0, 1.0, 1.0)])])
    check = check_fit(data, resolve("rtdetr_tiny", overrides).recipe, memory=FreeMemory(8 * GIB, "machine"))
    assert check.fits is False
    return [line for line in check.advice if "checkpointing" in line]


def test_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice(monkeypatch, 0.25) == [LINE + "5.50 GiB instead of 18.70 GiB and the same gradient, in more time"]


def test_it_is_not_enough_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = advice(monkeypatch, 0.5)
    assert line.endswith("9.90 GiB instead of 18.70 GiB and the same gradient, in more time; not enough alone")


def test_it_does_not_help_or_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice(monkeypatch, 0.99) == []
    assert advice(monkeypatch, 0.5, **{"train.batches.activation_checkpointing": True}) == []


def test_a_trial_is_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from boxwright.training import step

    entered: list[bool] = []
    real = step.checkpoint_activations

    def observed(model: Any) -> Any:
        entered.append(True)
        return real(model)

    monkeypatch.setattr(step, "checkpoint_activations", observed)
    overrides = {"image_size": 64, "train.batch_size": 2, "train.batches.activation_checkpointing": True}
    trial = Trial(
        recipe=resolve("rtdetr_tiny", {**overrides, "train.runtime.device": "cpu"}).recipe.to_dict(),
        categories=[(1, "a")],
        input_size=(64, 64),
        labels=[[0]],
        boxes=[[[1.0, 1.0, 30.0, 30.0]]],
        device="cpu",
        threads=1,
        memory=None,
        seconds=60.0,
    )
    run_trial(trial, lambda _: None)
    assert entered
