"""Parts of a check that fail each for itself: what was found before is kept, and the failure is a finding."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from boxwright.data.findings import Finding, FindingKind
from boxwright.workflows.check_learning import DIVERGES
from boxwright.workflows.check_report import ALL_SPLITS, PART_TITLES, SplitFinding

PART_NOT_CHECKED = FindingKind(
    "part_not_checked", "error", "parts of the check could not be made", "mend what is named, and check again"
)

_FAILURES = (ValueError, OSError, ImportError, MemoryError, torch.OutOfMemoryError)
"""Faults of the data, the recipe or the machine; any other error is one of the program, and raised."""

T = TypeVar("T")


class Attempts:
    """Attempts at parts of a check; ``findings`` are about those that failed."""

    def __init__(self) -> None:
        self.findings: list[SplitFinding] = []

    def make(self, name: str, part: Callable[[], T]) -> T | None:
        """Make a part; None, and a finding, where it fails.

        Args:
            name: of the part, a key of ``PART_TITLES``, or what else is made.
            part: makes it.
        """
        try:
            return part()
        except _FAILURES as error:
            self.skip(name, " ".join(str(error).split()) or type(error).__name__)
            return None

    def skip(self, name: str, reason: str) -> None:
        """Leave a part out.

        Args:
            name: of the part.
            reason: in a line.
        """
        has_diverged = name == "learning" and reason.startswith("training has diverged")
        kind = DIVERGES if has_diverged else PART_NOT_CHECKED
        self.findings.append(SplitFinding(ALL_SPLITS, Finding(kind, PART_TITLES.get(name, name), reason)))
