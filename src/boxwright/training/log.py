"""The log of a run: JSON lines, and tensorboard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from boxwright.training.callbacks import Callback, EvaluationEvent, StepEvent

LOG = "log.jsonl"

LOG_INTERVAL = 1.0
"""Seconds between rows of steps, at least."""


@runtime_checkable
class _Writer(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


class RunLog(Callback):
    """Appends one JSON object per line to ``log.jsonl``.

    Rows have a ``kind``: ``train`` (step, epoch, loss, losses, lr, gradient_norm, images_per_second, image_size) or
    ``eval`` (step, and the keys of the metrics, those of masks under ``segm``; of a classifier ``top1``, ``top5``).
    ``step`` counts the steps done.

    Args:
        folder: of the run.
        step: steps done; rows from beyond it, of steps that will be done again, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        self.drop_rows_after(step)
        self._tensorboard = _tensorboard(folder, step)
        self._wrote = time.monotonic()

    def on_step(self, event: StepEvent) -> None:
        now = time.monotonic()
        if now - self._wrote < LOG_INTERVAL and event.step not in (1, event.steps):
            return
        self._wrote = now
        row = {
            "step": event.step,
            "epoch": round(event.epoch, 3),
            "loss": event.loss,
            "losses": dict(event.losses),
            "lr": event.lr,
            "gradient_norm": event.gradient_norm,
            "images_per_second": event.images_per_second,
            "image_size": event.image_size,
            "seconds": event.seconds,
        }
        self.write("train", row)

    def on_evaluation(self, event: EvaluationEvent) -> None:
        self.write("eval", {"step": event.step, **event.metrics, "seconds": event.seconds})

    def write(self, kind: str, row: Mapping[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **row}) + "\n")
        if self._tensorboard is not None:
            for name, value in _scalars(row):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, int(row["step"]))

    def drop_rows_after(self, step: int) -> None:
        """Drop the rows of steps that will be done again."""
        rows = [row for row in read_log(self.path.parent) if row["step"] <= step] if step else []
        self.path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Read the rows of a run's log; a last line that was cut off while it was written is left out."""
    path = folder / LOG
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _scalars(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    scalars = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            scalars += [(f"{name}/{inner}", float(v)) for inner, v in value.items() if isinstance(v, int | float)]
        elif isinstance(value, int | float) and name != "step":
            scalars.append((name, float(value)))
    return scalars


def _tensorboard(folder: Path, step: int) -> _Writer | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: _Writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
    return writer
