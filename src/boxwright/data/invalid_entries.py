"""Entries of annotation files that a reader left out because they cannot be read."""

from __future__ import annotations

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright_runtime.printable_names import printable

INVALID_ANNOTATION = FindingKind(
    "invalid_annotation", "error", "annotations that cannot be read", "correct or delete them"
)
INVALID_ANNOTATION_FILE = FindingKind(
    "invalid_annotation_file",
    "error",
    "annotation files that cannot be read, left out with their images",
    "correct them, or delete them and their images",
)

MOST_INVALID = 100_000
"""Annotations that cannot be read, and are named each; with more, the file is not that of this data set."""


def refuse_invalid_entries(table: Annotations) -> None:
    """Raise ``ValueError`` where entries were left out that cannot be read; name the first, and count the others."""
    faults = [finding for finding in table.findings if finding.kind.severity == "error"]
    if faults:
        more = len(faults) - 1
        second = f"; and {more:,} more, the next: {describe_invalid(faults[1])}" if more else ""
        raise ValueError(f"{table.path}: {describe_invalid(faults[0])}{second}")


def describe_invalid(fault: Finding) -> str:
    """Return ``annotation 3 of image 'a.jpg': ...`` where the subject is an image, else the subject and detail."""
    if fault.kind == INVALID_ANNOTATION_FILE and fault.detail.startswith(("is ", "cannot ")):
        return f"{fault.subject} {fault.detail}"
    entry, colon, reason = fault.detail.partition(": ")
    if colon and entry.startswith("annotation"):
        return f"{entry} of image {printable(repr(fault.subject))}: {reason}"
    return f"{fault.subject}: {fault.detail}"
