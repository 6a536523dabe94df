"""``--backbone.weights RUN``: what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.compose.transfer import Transfer
from boxwright.training.run import WEIGHTS

SHOWN = 6
"""Names that are printed of a list."""


def report(transfer: Transfer) -> list[str]:
    """Which tensors were loaded, skipped and new, for the user."""
    lines = [f"backbone from {transfer.source}: {len(transfer.loaded)} tensors loaded"]
    if transfer.skipped:
        lines.append(f"  {len(transfer.skipped)} skipped, for which it has no place: {_names(transfer.skipped)}")
    if transfer.new:
        lines.append(f"  {len(transfer.new)} new, not in that run: {_names(transfer.new)}")
    return lines


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more (all in {WEIGHTS})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
