"""A callback that records the loss of every step."""

from __future__ import annotations

from boxwright.training.callbacks import Callback, StepEvent


class RecordedLosses(Callback):
    """The losses of a run, step by step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_step(self, event: StepEvent) -> None:
        self.values.append(event.loss)
