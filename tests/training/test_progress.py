"""Heads that learn otherwise late in a training know how far it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from boxwright.heads.rtdetr import RTDETR
from boxwright.training.callbacks import Callback, StepEvent
from boxwright.training.loop import run_training
from boxwright.training.run import Run

MakeRun = Callable[..., Run]


class Recorder(Callback):
    """Tell after each step if its matches had the late cost."""

    def __init__(self, head: RTDETR) -> None:
        self.head = head
        self.late: list[bool] = []

    def on_step(self, event: StepEvent) -> None:
        del event
        self.late.append(self.head.criterion.matcher.is_late)


@pytest.mark.parametrize(("late_cost", "first"), [(0.5, 3), (None, 6), (0.0, 0), (1.0, 6)])
def test_the_late_cost_begins_at_its_fraction(make_run: MakeRun, late_cost: float | None, first: int) -> None:
    run = make_run("run", steps=6)
    head = run.detector.head
    assert isinstance(head, RTDETR)
    head.late_cost = late_cost
    recorder = Recorder(head)
    run_training(replace(run, callbacks=[recorder]))
    assert recorder.late == [step >= first for step in range(6)]
