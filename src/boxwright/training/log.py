"""The log of a run: JSON lines, and tensorboard where it is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from boxwright.files import write_text
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
        note: hears of damaged rows, which are dropped too.
    """

    def __init__(self, folder: Path, step: int, note: Callable[[str], None] | None = None) -> None:
        self.path = folder / LOG
        self.drop_rows_after(step, note)
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

    def drop_rows_after(self, step: int, note: Callable[[str], None] | None = None) -> None:
        """Drop the rows of steps that will be done again; ``note`` hears of damaged ones, which are dropped too."""
        rows = [row for row in read_log(self.path.parent, note) if row["step"] <= step] if step else []
        # Whole or not at all: the process may be killed here too.
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_log(folder: Path, note: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """Read the rows of a run's log. Damaged ones, as one that was cut off while it was written, are left out.

    Args:
        folder: of the run.
        note: hears how many are damaged.
    """
    path = folder / LOG
    lines = path.read_bytes().splitlines() if path.is_file() else []
    rows = [_read_row(line) for line in lines]
    damaged = [number for number, row in enumerate(rows, 1) if row is None]
    if damaged and note is not None:
        rest = f" and {len(damaged) - 1} more" if len(damaged) > 1 else ""
        note(f"{path}: line {damaged[0]}{rest} of {len(rows)} cannot be read and is left out")
    return [row for row in rows if row is not None]


def _read_row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step"), int)
    return row if is_row else None


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
