"""Names of splits, from the names of folders, lists or keys, of which several may mean the same split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.split_names import canonical_split, without_year

SPLIT_CLAIMED_TWICE = FindingKind(
    "split_claimed_twice",
    "warning",
    "folders or files of a split that another one is, not read",
    "rename them to have them as splits of their own, or merge them",
)


class Claim(NamedTuple):
    """The name that is taken for a split, and others that mean the same split."""

    name: str
    others: tuple[str, ...] = ()

    def findings(self, split: str) -> tuple[Finding, ...]:
        """Name the others."""
        return tuple(Finding(SPLIT_CLAIMED_TWICE, other, f"{self.name} is {split}") for other in self.others)


def claim_splits(names: Iterable[str], *, years: bool = False) -> dict[str, Claim]:
    """Return the splits that names mean; of several names, the split's own, or else the first of the alphabet.

    Args:
        names: of folders, lists or keys.
        years: leave out years, as of ``train2017``, where no two names differ in nothing else.
    """
    names = sorted(set(names))
    plain = {name: canonical_split(without_year(name)) if years else canonical_split(name) for name in names}
    counts = Counter(plain.values())
    of_split: dict[str, list[str]] = {}
    for name in names:
        split = plain[name] if counts[plain[name]] == 1 else canonical_split(name)
        of_split.setdefault(split, []).append(name)
    claims = {}
    for split, claimants in of_split.items():
        first, *others = sorted(claimants, key=lambda name: (name != split, name))
        claims[split] = Claim(first, tuple(others))
    return claims
