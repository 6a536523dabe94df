"""Events of training, and the callbacks that hear of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class StopRequest:
    """A wish to stop training after the present step; anybody may make it."""

    reason: str | None = None

    def __call__(self, reason: str = "a callback asked for it") -> None:
        """Ask to stop. The run is evaluated and saved as at its end, and can be resumed."""
        self.reason = self.reason or reason

    def __bool__(self) -> bool:
        return self.reason is not None


@dataclass(frozen=True, kw_only=True)
class Event:
    """The state of the run at the moment of an event.

    Args:
        step: optimizer steps done.
        steps: optimizer steps of the whole run.
        seconds: time spent so far, over all sessions of the run.
        stop: call it to end training after this step.
    """

    step: int
    steps: int
    seconds: float
    stop: StopRequest = field(default_factory=StopRequest, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class StepEvent(Event):
    """An optimizer step was done.

    Args:
        epoch: passes over the training images.
        loss: sum of ``losses``.
        losses: the named terms, of this process's images.
        lr: the highest of the learning rates.
        gradient_norm: before clipping.
        images_per_second: of this step, over all processes.
        image_size: width of the network input, in pixels.
        seconds_left: of a budget of time, what is left of it; else at the speed so far.
    """

    epoch: float
    loss: float
    losses: Mapping[str, float]
    lr: float
    gradient_norm: float
    images_per_second: float
    image_size: int
    seconds_left: float


@dataclass(frozen=True, kw_only=True)
class EvaluationEvent(Event):
    """The detector was evaluated on the validation split.

    Args:
        metrics: by name, as in the log: AP, AP50, ... and ``segm`` with those of masks; of a classifier top1, top5.
        measure: name of the metric that decides: AP, mask AP or top-1.
        value: of that metric.
        best: it is the best so far.
    """

    metrics: Mapping[str, Any]
    measure: str
    value: float
    best: bool


@dataclass(frozen=True, kw_only=True)
class CheckpointEvent(Event):
    """A checkpoint was written.

    Args:
        path: of the file: ``last.pt``, to go on from, or ``best.safetensors``, to predict with.
    """

    path: Path


class Callback:
    """Hears of the events of training; a subclass overrides what it wants to hear of.

    Of several processes only the first has callbacks.
    """

    def on_step(self, event: StepEvent) -> None:
        """Take note of an optimizer step."""

    def on_evaluation(self, event: EvaluationEvent) -> None:
        """Take note of an evaluation; the checkpoint is written after it."""

    def on_checkpoint(self, event: CheckpointEvent) -> None:
        """Take note of a checkpoint."""

    def close(self) -> None:
        """Release what is held. Called once at the end, also after an error."""


def check_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Return the callbacks, checked.

    Raises:
        ValueError: one is something else, such as a function or the class itself.
    """
    checked = tuple(callbacks)
    for callback in checked:
        if not isinstance(callback, Callback):
            raise ValueError(
                f"{callback!r} is no callback: give objects of classes derived from boxwright.Callback, as "
                "boxwright.EarlyStopping() is"
            )
    return checked


class EarlyStopping(Callback):
    """Stops training when the deciding metric has not become better for some evaluations.

    Args:
        patience: evaluations in a row without a better value.
        min_delta: rise of the metric that counts as better.
    """

    def __init__(self, patience: int = 5, min_delta: float = 0.0) -> None:
        if patience < 1:
            raise ValueError(f"patience is at least 1, not {patience}")
        self.patience, self.min_delta = patience, min_delta
        self._best, self._without = float("-inf"), 0

    def on_evaluation(self, event: EvaluationEvent) -> None:
        if event.value > self._best + self.min_delta:
            self._best, self._without = event.value, 0
            return
        self._without += 1
        if self._without >= self.patience:
            event.stop(f"{event.measure} has not risen for {self.patience} evaluations")
