"""Report of a backbone that was loaded from another run."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.data.format_report import COLOR_OPTIONS, format_differences
from boxwright.data.input_format import InputFormat
from boxwright.training.run import WEIGHTS
from boxwright.weights.backbone import SourceBackbone, Transfer

NUM_NAMES = 6
"""Names that are printed of a list."""


def report_transfer(transfer: Transfer, source: SourceBackbone, input_format: InputFormat) -> list[str]:
    """Say for the user which tensors were loaded, skipped and new, and whether the backbone knows other images."""
    lines = [f"backbone from {transfer.source}: {len(transfer.loaded)} tensors loaded"]
    if transfer.skipped:
        lines.append(
            f"  {len(transfer.skipped)} skipped, which this backbone does not have: {list_names(transfer.skipped)}"
        )
    if transfer.new:
        lines.append(f"  {len(transfer.new)} new, not in that run: {list_names(transfer.new)}")
    differences = format_differences(source.input_format, input_format, COLOR_OPTIONS)
    if differences:
        lines.append("note: that run normalized its images otherwise:")
        lines += [f"  {line}" for line in differences]
    return lines


def list_names(names: Sequence[str]) -> str:
    """List the first names, and count the others."""
    more = f" and {len(names) - NUM_NAMES} more (all in {WEIGHTS})" if len(names) > NUM_NAMES else ""
    return ", ".join(names[:NUM_NAMES]) + more
