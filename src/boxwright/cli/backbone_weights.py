"""``--backbone.weights RUN``: what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

from boxwright.data.input_format import InputFormat
from boxwright.training.run import WEIGHTS
from boxwright.weights.backbone import SourceBackbone, Transfer

SHOWN = 6
"""Names that are printed of a list."""


def report(transfer: Transfer, given: SourceBackbone, images: InputFormat) -> list[str]:
    """Which tensors were loaded, skipped and new, for the user, and whether they know other images than come."""
    lines = [f"backbone from {transfer.source}: {len(transfer.loaded)} tensors loaded"]
    if transfer.skipped:
        lines.append(f"  {len(transfer.skipped)} skipped, which have no place here: {_names(transfer.skipped)}")
    if transfer.new:
        lines.append(f"  {len(transfer.new)} new, not in that run: {_names(transfer.new)}")
    then = given.input_format
    if (then.mean, then.std) != (images.mean, images.std):
        mean, std = (",".join(str(value) for value in values) for values in (then.mean, then.std))
        lines.append(
            f"note: that run normalized its images otherwise; to do as it did:  --input.mean {mean} --input.std {std}"
        )
    return lines


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more (all in {WEIGHTS})" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
