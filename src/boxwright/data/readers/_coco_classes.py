"""Classes of COCO categories: without Roboflow's dummy, and with each name once."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from boxwright.data.findings import Finding, FindingKind
from boxwright.structures import Category
from boxwright_runtime.printable_names import printable

DUMMY_CATEGORY = FindingKind(
    "dummy_category", "note", "categories that only name the super-category of all others, as Roboflow writes, left out"
)
CATEGORY_MERGED = FindingKind(
    "category_merged", "warning", "categories without annotations, merged with another of the same name"
)
CATEGORY_NAME_FORM = FindingKind(
    "category_name_form", "note", "category names read without blanks at their ends and in Unicode's form NFC"
)


class CategoryEntry(NamedTuple):
    """One category of the file.

    Args:
        id: its own.
        name: its own.
        supercategory: its own; None where it has none, or no text.
    """

    id: int
    name: str
    supercategory: str | None = None


class Classes(NamedTuple):
    """Classes of a file.

    Args:
        categories: sorted by id.
        label_of: of each category id that may have annotations.
        findings: what was left out or merged.
    """

    categories: tuple[Category, ...]
    label_of: dict[int, int]
    findings: list[Finding]


def number_categories(path: Path, entries: Sequence[CategoryEntry], counts: Mapping[int, int]) -> Classes:
    """Make classes of categories.

    Numbering is the same in every split: a category is left out only as Roboflow's dummy, and categories of one name
    are the class of the lowest id.

    Args:
        path: the annotation file, for messages.
        entries: with unique ids.
        counts: annotations of each category id; no entry where there are none.

    Raises:
        ValueError: several categories of one name have annotations.
    """
    findings = []
    same_name: dict[str, list[CategoryEntry]] = {}
    for entry in sorted(entries):
        if _is_dummy(entry, entries, counts):
            findings.append(Finding(DUMMY_CATEGORY, repr(entry.name), f"id {entry.id}"))
            continue
        name = class_name(entry.name)
        if name != entry.name:
            findings.append(Finding(CATEGORY_NAME_FORM, repr(entry.name), f"id {entry.id}"))
        same_name.setdefault(name, []).append(entry)
    _check_names(path, same_name, counts)
    for name, of_name in same_name.items():
        findings += [
            Finding(CATEGORY_MERGED, repr(name), f"id {entry.id}, merged into id {of_name[0].id}")
            for entry in of_name[1:]
        ]
    label_of = {entry.id: label for label, of_name in enumerate(same_name.values()) for entry in of_name}
    categories = tuple(Category(of_name[0].id, name) for name, of_name in same_name.items())
    return Classes(categories, label_of, findings)


def class_name(name: str) -> str:
    """Return a category's name without blanks at its ends, in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name).strip()


def _is_dummy(entry: CategoryEntry, entries: Sequence[CategoryEntry], counts: Mapping[int, int]) -> bool:
    others = [other for other in entries if other is not entry]
    return (
        entry.id == 0
        and (entry.supercategory or "none").strip().lower() == "none"
        and not counts.get(0)
        and bool(others)
        and all(other.supercategory == entry.name for other in others)
    )


def _check_names(path: Path, same_name: Mapping[str, Sequence[CategoryEntry]], counts: Mapping[int, int]) -> None:
    problems = []
    for name, of_name in same_name.items():
        used = [entry for entry in of_name if counts.get(entry.id)]
        if len(used) > 1:
            ids = ", ".join(f"id {entry.id} with {counts[entry.id]:,} annotations" for entry in used[:5])
            problems.append(f"{printable(repr(name))} ({ids}{', ...' if len(used) > 5 else ''})")
    if problems:
        named = ", ".join(problems[:3]) + (", ..." if len(problems) > 3 else "")
        raise ValueError(
            f"{path}: {len(problems)} category name(s) stand for several categories with annotations: {named}; "
            "rename the categories, or give their annotations one category_id"
        )
