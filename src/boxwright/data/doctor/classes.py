"""Checks of the classes of a split, and of the names of classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from boxwright.data.doctor.object_table import ObjectTable
from boxwright.data.findings import Finding, FindingKind
from boxwright.structures import Category

NO_OBJECTS = FindingKind(
    "no_objects",
    "error",
    "splits have no object that counts",
    "there is nothing to learn or to measure: is it the annotation file?",
)
ONLY_CROWDS = FindingKind(
    "only_crowds",
    "error",
    "splits have only objects with `iscrowd`",
    "such regions are not trained or counted: set iscrowd to 0 for single objects",
)
MOSTLY_CROWDS = FindingKind(
    "mostly_crowds",
    "warning",
    "splits have more objects with `iscrowd` than without",
    "such are not trained or counted",
)
RARE_CLASS = FindingKind(
    "rare_class", "note", "classes have fewer than 10 objects in train", "a detector hardly learns them"
)
IMBALANCE = FindingKind(
    "imbalance",
    "note",
    "splits have over 100 times as many objects of one class as of another",
    "look at the AP of each class, not only at its mean",
)
SIMILAR_CLASS_NAMES = FindingKind(
    "similar_class_names",
    "warning",
    "class names differ only by case, blanks, accents or a plural",
    "if they mean the same, make them one class",
)
ODD_CLASS_NAME = FindingKind(
    "odd_class_name", "note", "class names are numbers, or have blanks at their ends", "give them the names of things"
)
EMPTY_IMAGE = FindingKind(
    "empty_image", "note", "images have no objects", "right where there is nothing: they teach what the background is"
)
MOSTLY_EMPTY = FindingKind(
    "mostly_empty",
    "warning",
    "splits have more images without objects than with",
    "are annotations missing, or images from elsewhere?",
)
CROWDED_IMAGE = FindingKind(
    "crowded_image",
    "note",
    "images have over 25 times as many objects as half of the others",
    "are they annotated like the rest?",
)

RARE = 10
_IMBALANCED = 100
_CROWDED = 25
_FEWEST_CROWDED = 50


def find_class_faults(objects: ObjectTable, split: str) -> list[Finding]:
    """Find what is odd in the numbers of objects of each class and image."""
    crowds = int(objects.crowd.sum())
    if crowds == len(objects):
        kind = ONLY_CROWDS if crowds else NO_OBJECTS
        return [Finding(kind, split, f"{crowds:,} objects in {len(objects.records):,} images")]
    findings = []
    if 2 * crowds > len(objects):
        findings.append(Finding(MOSTLY_CROWDS, split, f"{crowds:,} of {len(objects):,}"))
    counts = class_counts(objects)
    if split == "train":
        findings += [
            Finding(RARE_CLASS, objects.class_names[label], f"{counts[label]} objects")
            for label in np.flatnonzero((counts > 0) & (counts < RARE)).tolist()
        ]
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    if counts[most] > _IMBALANCED * counts[least]:
        named = [f"{objects.class_names[label]} {counts[label]:,}" for label in (most, least)]
        findings.append(Finding(IMBALANCE, split, ", ".join(named)))
    return findings + _numbers_of_objects(objects, split)


def class_counts(objects: ObjectTable) -> Int64[np.ndarray, " classes"]:
    """Count the objects of each class; crowd regions are not objects."""
    return np.bincount(objects.labels[~objects.crowd], minlength=len(objects.class_names))


def find_name_faults(categories: Sequence[Category]) -> list[Finding]:
    """Find names of classes that hardly mean another class, or that say nothing."""
    of_key: dict[str, list[str]] = {}
    for category in categories:
        of_key.setdefault(_plain_name(category.name), []).append(category.name)
    findings = [
        Finding(SIMILAR_CLASS_NAMES, " / ".join(map(repr, names))) for names in of_key.values() if len(names) > 1
    ]
    odd = [name for category in categories if (name := category.name) != name.strip() or name.isdigit()]
    return findings + [Finding(ODD_CLASS_NAME, repr(name)) for name in odd]


def _plain_name(name: str) -> str:
    """A name without what makes no difference in meaning: case, accents, blanks, hyphens, a plural's ending."""
    letters = unicodedata.normalize("NFKD", name).casefold()
    plain = "".join(one for one in letters if one.isalnum())
    # "glass" and "bus" are no plurals; names of a few letters are left as they are.
    return re.sub(r"(?<=[^\Wsu]{1})s$", "", plain) if len(plain) > 3 else plain


def _numbers_of_objects(objects: ObjectTable, split: str) -> list[Finding]:
    counts = np.bincount(objects.image_index, minlength=len(objects.records))
    empty = np.flatnonzero(counts == 0).tolist()
    findings = [Finding(EMPTY_IMAGE, objects.names[index]) for index in empty]
    if 2 * len(empty) > len(counts):
        findings.append(Finding(MOSTLY_EMPTY, split, f"{len(empty):,} of {len(counts):,}"))
    usual = float(np.median(counts[counts > 0]))
    many = np.flatnonzero((counts > _CROWDED * usual) & (counts >= _FEWEST_CROWDED)).tolist()
    detail = f"half of the images have {usual:g} at most"
    return findings + [Finding(CROWDED_IMAGE, objects.names[index], f"{counts[index]}; {detail}") for index in many]
