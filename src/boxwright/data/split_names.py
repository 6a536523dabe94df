"""Names of splits that mean the same."""

from __future__ import annotations

import re
from collections.abc import Iterable

_OTHER_NAMES = {
    "training": "train",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "testing": "test",
}

_FIRST = ("train", "val", "test")


def canonical_split(name: str) -> str:
    """Return ``val`` for ``valid``, ``validate``, ``validation`` and ``dev``, and most other names as they are."""
    lower = name.lower()
    return _OTHER_NAMES.get(lower, lower if lower in _FIRST else name)


def is_split_name(name: str) -> bool:
    """Return True for the usual names of splits, also with a year."""
    return canonical_split(without_year(name)) in _FIRST


def without_year(name: str) -> str:
    """Return ``train`` for ``train2017``."""
    return re.sub(r"\d{4}$", "", name) or name


def sort_splits(names: Iterable[str]) -> list[str]:
    """Sort names of splits: train, val and test first, then by the alphabet."""
    return sorted(names, key=lambda name: (_rank(name), name))


def _rank(split: str) -> int:
    return next((rank for rank, name in enumerate(_FIRST) if split.startswith(name)), len(_FIRST))
