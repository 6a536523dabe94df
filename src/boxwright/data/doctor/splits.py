"""Checks of the splits of a data set against each other: classes, frequencies, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np

from boxwright.data.doctor.classes import class_counts
from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.records import DetectionData

UNKNOWN_CLASS = FindingKind(
    "unknown_class",
    "error",
    "classes with objects are not among the classes of train",
    "training stops at them: give all splits the same categories",
)
UNUSED_CLASS = FindingKind(
    "unused_class", "note", "classes have no objects in any split", "leave them out, or a detector carries them along"
)
CLASS_NOT_IN_TRAIN = FindingKind(
    "class_not_in_train", "warning", "classes have objects in another split, but none in train", "their AP will be 0"
)
CLASS_NOT_IN_VAL = FindingKind(
    "class_not_in_val", "note", "classes with objects in train have none in val", "they are not measured"
)
CLASS_NUMBERS_DIFFER = FindingKind(
    "class_numbers_differ", "note", "classes have another id in another split", "they are matched by name"
)
CLASS_LISTS_DIFFER = FindingKind(
    "class_lists_differ", "note", "classes are listed in some splits only, without objects there", "they are ignored"
)
FREQUENCY_SHIFT = FindingKind(
    "frequency_shift",
    "warning",
    "classes are over 4 times as frequent in one split as in another",
    "draw the splits anew: numbers of one say little about the other",
)
SIZE_SHIFT = FindingKind(
    "size_shift",
    "warning",
    "splits have objects of another size than train",
    "are they of the same source? numbers of one say little about the other",
)
NO_TRAIN_SPLIT = FindingKind(
    "no_train_split", "warning", "data sets have no split train", "`boxwright train` needs one"
)
NO_VAL_SPLIT = FindingKind(
    "no_val_split", "warning", "data sets have no split val", "nothing is measured during training"
)
TINY_SPLIT = FindingKind("tiny_split", "note", "splits have fewer than 10 images", "its numbers are chance")

_SHIFT = 4.0
_EXPECTED = 20
"""Objects of a class that a split would have at the frequency of another one, below which the shift may be chance."""

_SIZES_APART = 2.0
_FEWEST_SIZES = 50
_FEWEST_IMAGES = 10


def find_split_faults(splits: Mapping[str, DetectionData], objects: Mapping[str, ObjectTable]) -> list[Finding]:
    """Compare the splits of a data set: each finding names a class or split, and the splits."""
    findings = [Finding(TINY_SPLIT, name, f"{len(one.records)}") for name, one in objects.items() if _is_tiny(one)]
    if "train" not in splits:
        findings.append(Finding(NO_TRAIN_SPLIT, f"only {', '.join(splits)}"))
    if "val" not in splits:
        findings.append(Finding(NO_VAL_SPLIT, f"only {', '.join(splits)}"))
    findings += _missing_classes(objects)
    findings += _category_lists(splits)
    for one, other in combinations(objects, 2):
        findings += _frequencies(one, objects[one], other, objects[other])
    return findings + _sizes(objects)


def _is_tiny(objects: ObjectTable) -> bool:
    return len(objects.records) < _FEWEST_IMAGES


def _counts_by_name(objects: ObjectTable) -> dict[str, int]:
    return dict(zip(objects.class_names, class_counts(objects).tolist(), strict=True))


def _missing_classes(objects: Mapping[str, ObjectTable]) -> list[Finding]:
    if "train" not in objects:
        return []
    counts = {split: _counts_by_name(one) for split, one in objects.items()}
    train, findings = counts["train"], []
    total = {name: sum(one.get(name, 0) for one in counts.values()) for name in train}
    findings += [Finding(UNUSED_CLASS, name) for name, count in total.items() if not count]
    # Of a split without any object, one finding tells; its classes do not repeat it.
    has_objects = any(train.values())
    for split, others in counts.items():
        for name, count in others.items():
            if count and not train.get(name) and (has_objects or name not in train):
                kind = CLASS_NOT_IN_TRAIN if name in train else UNKNOWN_CLASS
                findings.append(Finding(kind, name, f"{count:,} objects in {split}"))
    val = counts.get("val")
    if val is not None and any(val.values()):
        missing = [name for name, count in train.items() if count and not val.get(name)]
        findings += [Finding(CLASS_NOT_IN_VAL, name, f"{train[name]:,} objects in train") for name in missing]
    return findings


def _category_lists(splits: Mapping[str, DetectionData]) -> list[Finding]:
    ids: dict[str, dict[str, int]] = {}
    for split, data in splits.items():
        for category in data.categories:
            ids.setdefault(category.name, {})[split] = category.id
    used = {
        (split, data.categories[label].name)
        for split, data in splits.items()
        for label in np.unique(np.concatenate([np.zeros(0, np.int64), *(one.labels for one in data.records)])).tolist()
    }
    findings = []
    for name, numbers in ids.items():
        if len(set(numbers.values())) > 1:
            described = ", ".join(f"{number} in {split}" for split, number in numbers.items())
            findings.append(Finding(CLASS_NUMBERS_DIFFER, name, described))
        if len(numbers) < len(splits) and not any((split, name) in used for split in numbers):
            findings.append(Finding(CLASS_LISTS_DIFFER, name, f"only in {', '.join(numbers)}"))
    return findings


def _frequencies(name: str, one: ObjectTable, other_name: str, other: ObjectTable) -> list[Finding]:
    counts, other_counts = _counts_by_name(one), _counts_by_name(other)
    total, other_total = sum(counts.values()), sum(other_counts.values())
    findings = []
    for label in counts.keys() & other_counts.keys():
        here, there = counts[label], other_counts[label]
        # Each count against what it would be at the frequency of the other split; classes that one has not at all are
        # a kind of their own.
        if not (here and there):
            continue
        expected, expected_there = there / other_total * total, here / total * other_total
        if max(expected / here, here / expected) > _SHIFT and min(max(expected, here), max(expected_there, there)) >= (
            _EXPECTED
        ):
            described = f"{here / total:.2%} of the objects in {name}, {there / other_total:.2%} in {other_name}"
            findings.append(Finding(FREQUENCY_SHIFT, label, described))
    return sorted(findings, key=lambda finding: finding.subject)


def _sizes(objects: Mapping[str, ObjectTable]) -> list[Finding]:
    """Compare the median size of objects, in sides of their image, with that in train."""
    medians = {}
    for split, one in objects.items():
        if len(one) >= _FEWEST_SIZES and one.form is None:
            ratio = one.box_area.clip(min=0) / one.image_sizes.prod(1)
            medians[split] = float(np.sqrt(np.median(ratio)))
    train = medians.pop("train", 0.0)
    return [
        Finding(SIZE_SHIFT, split, f"half are below {value:.1%} of their image's side, in train {train:.1%}")
        for split, value in medians.items()
        if train > 0 and max(value, train) > _SIZES_APART * min(value, train)
    ]
