"""``--backbone.weights RUN``: what a run begins with, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from boxwright.cli.writing import write_text
from boxwright.compose.transfer import Transfer, load_backbone
from boxwright.detector import Detector

WEIGHTS = "backbone_weights.json"
"""In the folder of a run: where its backbone came from, and the names of all tensors."""

SHOWN = 6
"""Names that are printed of a list."""


def take_backbone(console: Console, detector: Detector, source: str) -> Transfer:
    """Take over another run's backbone, and say which tensors were loaded, skipped and new."""
    transfer = load_backbone(detector, source)
    for line in report(transfer):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return transfer


def note_backbone(transfer: Transfer, folder: Path) -> None:
    """Note in the folder of a run what it began with."""
    content = {"source": str(transfer.source), **{key: transfer._asdict()[key] for key in ("loaded", "skipped", "new")}}
    write_text(folder / WEIGHTS, json.dumps(content, indent=1) + "\n")


def report(transfer: Transfer) -> list[str]:
    """What was done, for the user."""
    lines = [f"backbone from {transfer.source}: {len(transfer.loaded)} tensors loaded"]
    if transfer.skipped:
        lines.append(f"  {len(transfer.skipped)} skipped, for which it has no place: {_names(transfer.skipped)}")
    if transfer.new:
        lines.append(f"  {len(transfer.new)} new, not in that run: {_names(transfer.new)}")
    return lines


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more (all in {WEIGHTS})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
