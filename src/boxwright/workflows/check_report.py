"""Results of a check of a data set: every finding with its split, as lines for the terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from boxwright.data.findings import Finding, FindingKind, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From the worst on."""

LISTED = 10
"""Findings of a kind that the terminal shows."""

ALL_SPLITS = ""
"""In place of a split's name: a finding about several splits, or about the data set."""

_BRIEF = 5
"""Kinds that are named where training begins."""


class SplitFinding(NamedTuple):
    """A finding, and the split that it is in; ``ALL_SPLITS`` where it is about several."""

    split: str
    finding: Finding

    def __str__(self) -> str:
        is_about_split = self.finding.subject == self.split and self.finding.detail  # a class may be called "train"
        return str(self.finding) if is_about_split or not self.split else f"{self.split}: {self.finding}"

    def to_json(self) -> dict[str, str]:
        """Return kind, severity, split, subject and detail."""
        kind, name, detail = self.finding
        return {
            "kind": kind.name,
            "severity": kind.severity,
            "split": self.split,
            "subject": name,
            "detail": detail,
        }


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Numbers of a split.

    Args:
        images: in it.
        objects: in them, crowd regions left out.
        crowds: regions marked as crowds.
        empty_images: images without any annotation.
        classes: objects of each class, by its name.
    """

    images: int
    objects: int
    crowds: int
    empty_images: int
    classes: Mapping[str, int]


@runtime_checkable
class CheckPart(Protocol):
    """The result of a part of the check beyond the data set itself."""

    @property
    def split_findings(self) -> tuple[SplitFinding, ...]:
        """Findings of this part, each with its split."""

    def lines(self) -> list[str]:
        """Describe for the command line what the findings do not say."""

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""


PART_TITLES = {
    "network": "what the network will see",
    "fit": "the fit",
    "learning": "will it learn",
    "label_errors": "label errors",
}
"""Titles of the parts, by the names of the report's fields."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """All that a check brings to light.

    Args:
        data: name of the data set.
        splits: numbers of each split, by its name.
        findings: of the data set itself and of all parts, in no particular order.
        network: sizes of objects and limits in the network of a recipe; None without a recipe.
        fit: time and memory of the worst steps; None where it was not tried.
        learning: the verdict on a few images that were learned by heart; None where it was not tried.
        label_errors: ranking by a model; None without one.
        fixed: folder of the repaired copy; None where none was asked for.
        fixes: changes of that copy, each in its split.
    """

    data: str
    splits: Mapping[str, SplitCounts]
    findings: tuple[SplitFinding, ...]
    network: CheckPart | None = None
    fit: CheckPart | None = None
    learning: CheckPart | None = None
    label_errors: CheckPart | None = None
    fixed: Path | None = None
    fixes: tuple[SplitFinding, ...] = ()

    @property
    def has_errors(self) -> bool:
        """Something would stop training, or make it wrong."""
        return any(one.finding.kind.severity == "error" for one in self.findings)

    @property
    def parts(self) -> dict[str, CheckPart]:
        """Parts beyond the data set itself that were checked, by the names of their fields."""
        parts = {name: getattr(self, name) for name in PART_TITLES}
        return {name: part for name, part in parts.items() if part is not None}

    def by_kind(self) -> dict[FindingKind, list[SplitFinding]]:
        """Return the findings of each kind: errors first, then warnings and notes, the frequent kinds first."""
        return group_by_kind(self.findings)

    def count(self, severity: Severity) -> int:
        """Count the findings of a severity."""
        return sum(one.finding.kind.severity == severity for one in self.findings)

    def lines(self, listed: int = LISTED) -> list[str]:
        """Describe all of it for the command line, each kind with its first findings."""
        lines = [f"{self.data}: {_describe_counts(self.splits)}"]
        lines += [f"  {name}: {_describe_split(counts)}" for name, counts in self.splits.items()]
        severity = ""
        for kind, members in self.by_kind().items():
            if kind.severity != severity:
                severity = kind.severity
                lines += ["", f"{severity}s:"]
            lines += describe_kind(kind, members, listed)
        for name, part in self.parts.items():
            lines += ["", f"{PART_TITLES[name]}:", *(f"  {line}" for line in part.lines())]
        if self.fixed is not None:
            lines += ["", *self._fix_lines()]
        return [*lines, "", self.verdict()]

    def brief(self, command: str) -> list[str]:
        """Say in a few lines what training should know; none where there is nothing worse than a note.

        Args:
            command: that shows all of it.
        """
        kinds = [(kind, members) for kind, members in self.by_kind().items() if kind.severity != "note"]
        lines = [
            f"{kind.severity}: {len(members):,} {kind.text}: {members[0]}" + ", ..." * (len(members) > 1)
            for kind, members in kinds[:_BRIEF]
        ]
        if not lines:
            return []
        more = f"{len(kinds) - _BRIEF} more kinds of findings, and " if len(kinds) > _BRIEF else ""
        return [*lines, f"{more}all of them by name: {command}"]

    def verdict(self) -> str:
        """Sum up in a line."""
        counts = [f"{self.count(severity):,} {severity}s" for severity in SEVERITIES]
        end = (
            "errors come first: training would stop at them, or be wrong"
            if self.has_errors
            else "nothing stops training"
        )
        return f"{', '.join(counts)}: {end}"

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON writes it."""
        return {
            "data": self.data,
            "splits": {name: {**vars(counts), "classes": dict(counts.classes)} for name, counts in self.splits.items()},
            "counts": {kind.name: len(members) for kind, members in self.by_kind().items()},
            "kinds": {
                kind.name: {"severity": kind.severity, "text": kind.text, "advice": kind.advice}
                for kind in self.by_kind()
            },
            "findings": [one.to_json() for members in self.by_kind().values() for one in members],
            "parts": {
                name: {"title": PART_TITLES[name], "lines": part.lines(), **part.to_json()}
                for name, part in self.parts.items()
            },
            "fixed": None if self.fixed is None else str(self.fixed),
            "fixes": [one.to_json() for one in self.fixes],
        }

    def _fix_lines(self) -> list[str]:
        counts = {kind: len(members) for kind, members in group_by_kind(self.fixes).items()}
        lines = [f"  {count:,} {kind.text}" for kind, count in counts.items()] or ["  nothing had to be changed"]
        return [f"a repaired copy is in {self.fixed}; fixes.json names each change:", *lines]


def group_by_kind(findings: Sequence[SplitFinding]) -> dict[FindingKind, list[SplitFinding]]:
    """Sort findings into their kinds: errors first, then warnings and notes, the frequent kinds first."""
    of_kind: dict[FindingKind, list[SplitFinding]] = {}
    for one in findings:
        of_kind.setdefault(one.finding.kind, []).append(one)
    order = sorted(of_kind, key=lambda kind: (SEVERITIES.index(kind.severity), -len(of_kind[kind]), kind.name))
    return {kind: of_kind[kind] for kind in order}


def describe_kind(kind: FindingKind, members: Sequence[SplitFinding], listed: int) -> list[str]:
    """Describe a kind in lines: its number, the first findings, and what to do."""
    lines = [f"  {len(members):,} {kind.text}" + (f"; {kind.advice}" if kind.advice else "") + f" [{kind.name}]"]
    lines += [f"    {one}" for one in members[:listed]]
    if len(members) > listed:
        lines.append(f"    and {len(members) - listed:,} more")
    return lines


def _describe_counts(splits: Mapping[str, SplitCounts]) -> str:
    classes = {name for one in splits.values() for name in one.classes}
    images, objects = (sum(getattr(one, name) for one in splits.values()) for name in ("images", "objects"))
    return f"{images:,} images, {objects:,} objects of {len(classes):,} classes"


def _describe_split(counts: SplitCounts) -> str:
    parts = [f"{counts.images:,} images", f"{counts.objects:,} objects"]
    if counts.crowds:
        parts.append(f"{counts.crowds:,} crowd regions")
    if counts.empty_images:
        parts.append(f"{counts.empty_images:,} images without objects")
    return ", ".join(parts)
