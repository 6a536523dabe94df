"""Entries of annotation files that a reader left out because they cannot be read."""

from __future__ import annotations

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding
from boxwright.data.printable_names import printable


def refuse_invalid_entries(table: Annotations) -> None:
    """Raise ``ValueError`` where entries were left out that cannot be read; name the first, and count the others."""
    faults = [finding for finding in table.findings if finding.kind.severity == "error"]
    if faults:
        more = len(faults) - 1
        second = f"; and {more:,} more, the next: {describe_invalid(faults[1])}" if more else ""
        raise ValueError(f"{table.path}: {describe_invalid(faults[0])}{second}")


def describe_invalid(fault: Finding) -> str:
    """Return ``annotation 3 of image 'a.jpg': ...`` where the subject is an image, else the subject and detail."""
    entry, colon, reason = fault.detail.partition(": ")
    if colon and entry.startswith("annotation"):
        return f"{entry} of image {printable(repr(fault.subject))}: {reason}"
    return f"{fault.subject}: {fault.detail}"
