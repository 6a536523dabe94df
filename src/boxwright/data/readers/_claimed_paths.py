"""Annotation files and folders that mean the same split, named by their paths."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from boxwright.data.findings import Finding
from boxwright.data.readers._split_claims import Claim
from boxwright.data.split_names import canonical_split


def find_rivals(folder: Path, split: str, taken: Path, others: Iterable[Path]) -> tuple[Finding, ...]:
    """Name the files or folders that a split could be read from as well.

    Args:
        folder: of the data set.
        split: its name.
        taken: the file or folder that it is read from.
        others: files or folders of the same split.
    """
    names = tuple(other.relative_to(folder).as_posix() for other in others)
    return Claim(taken.relative_to(folder).as_posix(), names).findings(canonical_split(split.strip("/")))
