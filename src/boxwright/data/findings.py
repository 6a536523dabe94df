"""Findings of a data set: what is wrong or worth knowing, each with its kind and what it is about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from boxwright_runtime.printable_names import printable

Severity = Literal["error", "warning", "note"]
"""An error cannot be used, a warning was dropped, repaired or will cost accuracy, a note is worth knowing."""


@dataclass(frozen=True)
class FindingKind:
    """One kind of finding.

    Args:
        name: in reports and options, as ``box_outside_image``.
        severity: see ``Severity``.
        text: a plural that follows the number of findings, as ``boxes outside their image dropped``.
        advice: what the user can do, in one clause; empty where the text says it.
    """

    name: str
    severity: Severity
    text: str
    advice: str = ""


class Finding(NamedTuple):
    """One finding.

    Args:
        kind: of the finding.
        subject: name of the image, file, class or split that it is about.
        detail: the values, or the annotation, as ``annotation 12: 0 x 14 pixels``.
    """

    kind: FindingKind
    subject: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.subject} ({self.detail})" if self.detail else self.subject


def summarize(findings: Iterable[Finding], count: int = 3) -> list[str]:
    """Describe findings in one line for each kind, in the order of their first findings.

    Args:
        findings: of any kinds.
        count: findings that are named, at most.
    """
    of_kind: dict[FindingKind, list[Finding]] = {}
    for finding in findings:
        of_kind.setdefault(finding.kind, []).append(finding)
    lines = []
    for kind, members in of_kind.items():
        named = ", ".join(printable(str(one)) for one in members[:count]) + (", ..." if len(members) > count else "")
        advice = f"; {kind.advice}" if kind.advice else ""
        lines.append(f"{len(members):,} {kind.text}: {named}{advice}")
    return lines
