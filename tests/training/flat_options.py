"""Options of training in one flat call."""

from __future__ import annotations

from typing import Any

from boxwright.compose.train_options import (
    BatchOptions,
    OptimizerOptions,
    RuntimeOptions,
    ScheduleOptions,
    TrainOptions,
)

GROUPS = {
    "optimizer": OptimizerOptions,
    "schedule": ScheduleOptions,
    "batches": BatchOptions,
    "runtime": RuntimeOptions,
}


def train_options(**options: Any) -> TrainOptions:
    """Make options: ``train_options(lr=0.1, optimizer__name="sgd")``, ``__`` for the dots."""
    nested: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    top = {}
    for name, value in options.items():
        group, _, inner = name.partition("__")
        (nested[group] if inner else top)[inner or group] = value
    return TrainOptions(**top, **{group: kind(**nested[group]) for group, kind in GROUPS.items()})
