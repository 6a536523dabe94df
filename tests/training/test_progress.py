"""Heads that learn otherwise late in a training know how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from boxwright.heads.rtdetr import RTDETR
from boxwright.passport import Passport
from boxwright.queries import encoder_queries
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.loop import run_training
from boxwright.training.run import Run
from equality import assert_equal

MakeRun = Callable[..., Run]


class Recorder(Callback):
    """Tell after each step if its matches had the late cost; stop after one of the steps."""

    def __init__(self, head: RTDETR, last: int | None = None) -> None:
        self.head, self.last = head, last
        self.late: list[bool] = []
        self.factors: list[float] = []

    def on_step(self, event: StepEvent) -> None:
        self.late.append(self.head.criterion.matcher.is_late)
        self.factors.append(self.head.criterion.class_factor)
        if event.step == self.last:
            event.stop("enough")


@pytest.mark.parametrize(("late_cost", "first"), [(0.5, 3), (None, 6), (0.0, 0), (1.0, 6)])
def test_the_late_cost_begins_at_its_fraction(make_run: MakeRun, late_cost: float | None, first: int) -> None:
    run = make_run("run", steps=6)
    head = run.detector.head
    assert isinstance(head, RTDETR)
    head.late_cost = late_cost
    recorder = Recorder(head)
    run_training(replace(run, callbacks=[recorder]))
    assert recorder.late == [step >= first for step in range(6)]


def passport(**changes: Any) -> Passport:
    return Passport(version="1", **changes)


@pytest.mark.parametrize(
    ("began_with", "expected"),
    [
        (passport(), [4.0, 3.25, 2.5, 1.75, 1.0, 1.0]),
        (passport(parent=passport()), [1.0] * 6),
        (passport(backbone=passport()), [1.0] * 6),
    ],
)
@pytest.mark.parametrize("stop", [None, 2])
def test_class_losses_count_for_more_at_first_where_weights_are_random(
    make_run: MakeRun, began_with: Passport, expected: list[float], stop: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that goes on knows what it began with."""
    monkeypatch.setattr(encoder_queries, "EARLY_STEPS", 4)
    factors: list[float] = []
    for last, resume in [(None, False)] if stop is None else [(stop, False), (None, True)]:
        run = make_run("run", steps=6)
        head = run.detector.head
        assert isinstance(head, RTDETR)
        head.early_class_factor = 4.0
        run.detector.passport = passport() if resume else began_with
        recorder = Recorder(head, last)
        run_training(replace(run, callbacks=[recorder]), resume=resume)
        factors += recorder.factors
    assert factors == expected


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_run_that_was_stopped_goes_on_with_the_cost_of_its_place(make_run: MakeRun, stop: int) -> None:
    """The third of six steps is the last one with the common cost."""

    def train(name: str, *, last: int | None = None, resume: bool = False) -> tuple[list[bool], dict[str, Any]]:
        run = make_run(name, steps=6)
        head = run.detector.head
        assert isinstance(head, RTDETR)
        head.late_cost = 0.5
        recorder = Recorder(head, last)
        run_training(replace(run, callbacks=[recorder]), resume=resume)
        return recorder.late, torch.load(run.folder / "last.pt", weights_only=True)

    whole, expected = train("whole")
    before, _ = train("broken", last=stop)
    after, weights = train("broken", resume=True)
    assert before + after == whole == [False] * 3 + [True] * 3
    assert_equal(weights["model"], expected["model"])
