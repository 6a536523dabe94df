"""The largest causes of lost precision, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from boxwright.data.joined_objects import restore_dropped
from boxwright.data.records import DetectionData, object_columns
from boxwright.evaluation.error_kinds import KINDS, DetectionErrors
from boxwright.evaluation.error_table import CLASSIFICATION, HIT, ErrorTable
from boxwright_runtime.printable_names import printable_text

LEAST_OBJECTS = 20
"""Of fewer objects nothing is said."""

_LEAST_ERRORS = 5
_LEAST_COST, _LEAST_FRACTION = 0.005, 0.05
"""Of AP50, and of what is lost of it."""

_MOST_CLASSES = 4
"""Of a group of classes that are confused."""

_MOST_PAIRS = 20
"""Pairs of classes that are looked at, those with most errors."""

_SMALL_AREA = 32**2
_DENSE = 21
"""Images with so many objects are dense."""


@dataclass(frozen=True)
class ErrorFinding:
    """One cause of lost precision.

    Args:
        kind: of the errors; see ``KINDS``.
        cost: AP50 that would be gained without them.
        fraction: the same, of all that is lost, 1 - AP50. Each cause is corrected alone, so that fractions do not add
            up to 1.
        num_errors: of this kind, whatever their scores.
        text: one line for the user.
    """

    kind: str
    cost: float
    fraction: float
    num_errors: int
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return all values, ready for ``json.dump``."""
        return asdict(self)


def find_causes(
    data: DetectionData, errors: DetectionErrors, thresholds: Sequence[float], *, limit: int = 3
) -> tuple[ErrorFinding, ...]:
    """Name the largest causes of lost precision, the costliest first.

    Nothing is said of data with few objects, nor of errors that are few or cost little.

    Args:
        data: the images and their objects.
        errors: of the detections.
        thresholds: operating threshold of each class, above which detections are counted for the text.
        limit: no more than so many.
    """
    lost = 1 - errors.AP50
    if errors.table.num_objects.sum() < LEAST_OBJECTS or lost <= 0:
        return ()
    features = _Qualifiers(restore_dropped(data))
    above = errors.table.scores >= np.asarray(thresholds, dtype=np.float64)[errors.table.labels]
    causes = _confused_groups(errors, lost, above)
    for index, kind in enumerate(KINDS, HIT + 1):
        if kind == "classification" and causes:
            continue
        own = errors.kinds[kind]
        if kind == "missed":
            text = f"{_count(own.num_errors, 'object')} that no detection is near to" + features.describe(
                errors.table.missed
            )
        else:
            text = _TEXTS[kind] + _describe_detections(errors, errors.table.kinds == index, above)
        causes.append(_finding(kind, own.cost, lost, own.num_errors, text))
    causes = [one for one in causes if _is_worth_saying(one)]
    return tuple(sorted(causes, key=lambda one: (-one.cost, KINDS.index(one.kind)))[:limit])


_TEXTS = {
    "classification": "objects with the class of another one",
    "localization": "boxes that are off (IoU 0.1 to 0.5)",
    "both": "boxes that are off and have another class",
    "duplicate": "second detections of an object",
    "background": "detections where there is no object",
}


def _finding(kind: str, cost: float, lost: float, num_errors: int, text: str) -> ErrorFinding:
    return ErrorFinding(kind, cost, cost / lost, num_errors, f"{100 * cost / lost:.0f} % of the lost AP50: {text}")


def _is_worth_saying(one: ErrorFinding) -> bool:
    return one.num_errors >= _LEAST_ERRORS and one.cost >= _LEAST_COST and one.fraction >= _LEAST_FRACTION


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _describe_detections(errors: DetectionErrors, whose: Bool[np.ndarray, " n"], above: Bool[np.ndarray, " n"]) -> str:
    """Count errors with operating scores, and name the class that most of them are of."""
    labels = errors.table.labels[whose & above]
    if not len(labels):
        return ", all below the thresholds of the best F1"
    text = f", {len(labels):,} of them above the thresholds of the best F1"
    counts = np.bincount(labels, minlength=len(errors.per_class))
    most = int(counts.argmax())
    if len(errors.per_class) > 1 and counts[most] >= 0.6 * len(labels) and len(labels) >= _LEAST_ERRORS:
        text += f", mostly of {printable_text(errors.per_class[most].name)} ({counts[most]:,})"
    return text


def _confused_groups(errors: DetectionErrors, lost: float, above: Bool[np.ndarray, " n"]) -> list[ErrorFinding]:
    """Find a few classes that are taken for each other, if nearly all of the cost of wrong classes is among them."""
    confused = _ConfusedClasses(errors.table)
    group = confused.find_group()
    cost = confused.cost(group) if group else 0.0
    if cost == 0 or cost < 0.75 * errors.kinds["classification"].cost:
        return []
    among = confused.errors_among(group)
    names = [printable_text(errors.per_class[label].name) for label in group]
    text = f"between {', '.join(names[:-1])} and {names[-1]}, {_count(int(among.sum()), 'detection')} with the wrong"
    text += f" one of these classes, {int((among & above).sum()):,} of them above the thresholds of the best F1"
    return [_finding("classification", cost, lost, int(among.sum()), text)]


class _ConfusedClasses:
    """Detections with the class of another object, by both classes."""

    def __init__(self, table: ErrorTable) -> None:
        self.table = table
        self.wrong = table.kinds == CLASSIFICATION
        self.true = np.append(table.object_labels, -1)[table.objects]
        self.base = table.precision_without()
        self.costs: dict[tuple[int, ...], float] = {}

    def errors_among(self, classes: Sequence[int]) -> Bool[np.ndarray, " n"]:
        """Select errors whose both classes are among some."""
        among: Bool[np.ndarray, " n"] = self.wrong & np.isin(self.table.labels, classes) & np.isin(self.true, classes)
        return among

    def cost(self, classes: tuple[int, ...]) -> float:
        """Compute AP50 that would be gained if these classes were not confused."""
        if classes not in self.costs:
            corrected = self.table.precision_without(self.errors_among(classes))
            self.costs[classes] = float(np.nanmean(corrected) - np.nanmean(self.base))
        return self.costs[classes]

    def find_group(self) -> tuple[int, ...]:
        """Find the costliest pair, and add classes while each makes it costlier by a fifth."""
        both = np.sort(np.stack([self.table.labels, self.true], 1)[self.wrong], 1)
        pairs, counts = np.unique(both, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MOST_PAIRS]
        candidates = [(int(first), int(second)) for first, second in pairs[order]]
        if not candidates:
            return ()
        group: tuple[int, ...] = max(candidates, key=self.cost)
        while len(group) < _MOST_CLASSES:
            near = {label for pair in candidates if set(pair) & set(group) for label in pair} - set(group)
            larger = [tuple(sorted((*group, label))) for label in sorted(near)]
            best = max(larger, key=self.cost, default=group)
            if best == group or self.cost(best) < 1.2 * self.cost(group):
                break
            group = best
        return group


class _Qualifiers:
    """Sizes of objects and densities of their images, to say of which missed ones are."""

    def __init__(self, data: DetectionData) -> None:
        objects = object_columns(data.records)
        per_image = np.bincount(objects.image_index[~objects.crowd], minlength=len(data.records))
        self.counted = ~objects.crowd
        self.features = {
            "small (below 32 x 32 pixels)": objects.area < _SMALL_AREA,
            f"in images with {_DENSE} or more objects": per_image[objects.image_index] >= _DENSE,
        }

    def describe(self, missed: Bool[np.ndarray, " m"]) -> str:
        """Name the features that missed objects have much more often than others."""
        total = max(int(missed.sum()), 1)
        texts = []
        for name, has in self.features.items():
            among, of_all = (has & missed).sum() / total, (has & self.counted).sum() / self.counted.sum()
            if total >= _LEAST_ERRORS and among >= 0.5 and among >= 1.5 * of_all:
                texts.append(f"{100 * among:.0f} % of them {name}, as {100 * of_all:.0f} % of all objects are")
        return "".join(f", {text}" for text in texts)
