"""What a run writes while it goes: JSON lines, and tensorboard where it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

LOG = "log.jsonl"


@runtime_checkable
class _Writer(Protocol):
    def add_scalar(self, tag: str, value: float, step: int) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """Appends one JSON object per line to ``log.jsonl``.

    Rows have a ``kind``: ``train`` (step, epoch, loss, losses, lr, gradient_norm, images_per_second, image_size) or
    ``eval`` (step, and the keys of the metrics, those of masks under ``segm``; of a classifier ``top1``, ``top5``).
    ``step`` counts the steps done.

    Args:
        folder: of the run.
        step: where the run stands; rows from beyond it, of steps that will be done again, are dropped.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        kept = [row for row in read_log(folder) if row["step"] <= step] if step else []
        self.path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        self._tensorboard = _tensorboard(folder, step)

    def write(self, kind: str, row: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": kind, **row}) + "\n")
        if self._tensorboard is not None:
            for name, value in _scalars(row):
                self._tensorboard.add_scalar(f"{kind}/{name}", value, int(row["step"]))

    def close(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; a last line that was cut off while it was written is left out."""
    path = folder / LOG
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _scalars(row: Mapping[str, Any]) -> list[tuple[str, float]]:
    found = []
    for name, value in row.items():
        if isinstance(value, Mapping):
            found += [(f"{name}/{inner}", float(v)) for inner, v in value.items() if isinstance(v, int | float)]
        elif isinstance(value, int | float) and name != "step":
            found.append((name, float(value)))
    return found


def _tensorboard(folder: Path, step: int) -> _Writer | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: _Writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
    return writer
