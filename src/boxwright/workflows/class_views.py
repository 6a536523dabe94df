"""Classes as a network sees them: counts of small, dropped and unfit objects, and what to say of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from boxwright.data.findings import Finding, FindingKind
from boxwright.data.size_survey import SMALL_FRACTION, SMALL_SIDE, DrawnObjects, ObjectSides, mending_size
from boxwright.evaluation.anchor_fit import AnchorSurvey

SMALL_OBJECTS = FindingKind(
    "small_objects",
    "warning",
    "classes with more than 5 % of their objects below 8 pixels in the network input",
    "a larger --image-size mends it",
)
DROPPED_OBJECTS = FindingKind(
    "objects_dropped_in_training",
    "warning",
    "classes with objects that every epoch of training drops as smaller than a pixel",
    "a larger --image-size or a lower --augment.zoom_out keeps them",
)
UNFIT_ANCHORS = FindingKind(
    "unfit_anchors",
    "warning",
    "classes with objects that no anchor has the shape or size of",
    "change the head's anchors",
)

DROPPED_FRACTION = 0.01
FEWEST_OBJECTS = 3
"""A class is a finding from so many of its objects on, or all of them where it has fewer."""

NAMED_CLASSES = 3

BRIEF = {
    SMALL_OBJECTS: "objects below 8 pixels in the network input",
    DROPPED_OBJECTS: "objects dropped in every epoch, as smaller than a pixel",
    UNFIT_ANCHORS: "objects without an anchor of their shape or size",
}
"""The beginning of the one line that training says."""


class DrawnCounts(NamedTuple):
    """Objects of the training samples that were drawn: all, those that a crop left out, dropped as smaller than a
    pixel, and left but below 8 pixels."""

    total: int = 0
    cropped: int = 0
    dropped: int = 0
    small: int = 0


class AnchorCounts(NamedTuple):
    """Objects compared with anchors: all, those whose best anchor is below the IoU of positive ones, below that of
    background, and larger than any anchor."""

    total: int = 0
    below_positive: int = 0
    below_negative: int = 0
    larger: int = 0


@dataclass(frozen=True, kw_only=True)
class ClassView:
    """One class as the network sees it.

    Args:
        name: of the class.
        objects: in the split that is trained on, crowd regions left out.
        median_side: of their shorter sides, in pixels of the network input; 0 without objects.
        small: objects below 8 pixels in evaluation.
        tiny: objects below one pixel in evaluation.
        small_in_image: objects below 8 pixels in the images themselves, to which a larger input adds nothing.
        mending_size: image size at which at most 5 % are below 8 pixels; None where this one is.
        drawn: objects of training samples.
        anchors: objects compared with anchors; all 0 where the head has none.
    """

    name: str
    objects: int
    median_side: float
    small: int
    tiny: int
    small_in_image: int
    mending_size: int | None
    drawn: DrawnCounts = DrawnCounts()  # noqa: RUF009
    anchors: AnchorCounts = AnchorCounts()  # noqa: RUF009

    @property
    def fractions(self) -> dict[FindingKind, float]:
        """Fractions of objects that are small, dropped or without an anchor of their shape."""
        counts = {
            SMALL_OBJECTS: (self.small, self.objects),
            DROPPED_OBJECTS: (self.drawn.dropped, self.drawn.total),
            UNFIT_ANCHORS: (self.anchors.below_negative, self.anchors.total),
        }
        return {kind: count / max(1, total) for kind, (count, total) in counts.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain values."""
        return {**vars(self), "drawn": self.drawn._asdict(), "anchors": self.anchors._asdict()}

    def troubles(self) -> dict[FindingKind, str]:
        """Describe what costs accuracy in this class, by kind."""
        kinds: dict[FindingKind, tuple[int, int, float, Callable[[ClassView], str]]] = {
            SMALL_OBJECTS: (self.small, self.objects, SMALL_FRACTION, _small),
            DROPPED_OBJECTS: (self.drawn.dropped, self.drawn.total, DROPPED_FRACTION, _dropped),
            UNFIT_ANCHORS: (self.anchors.below_negative, self.anchors.total, SMALL_FRACTION, _unfit),
        }
        return {
            kind: describe(self)
            for kind, (count, total, fraction, describe) in kinds.items()
            if count > fraction * total and count >= min(FEWEST_OBJECTS, total)
        }


def view_classes(
    names: Sequence[str], sides: ObjectSides, drawn: DrawnObjects, anchors: AnchorSurvey | None, image_size: int
) -> tuple[ClassView, ...]:
    """Put together what was counted, class by class, in the order of labels."""
    order = np.argsort(sides.labels, kind="stable")
    bounds = np.searchsorted(sides.labels[order], np.arange(1, len(names)))
    views = []
    for label, rows in enumerate(np.split(order, bounds)):
        columns = (drawn.total, drawn.cropped, drawn.too_small, drawn.small)
        own_drawn = DrawnCounts(*(int(column[label]) for column in columns))
        own_anchors = AnchorCounts()
        if anchors is not None:
            compared = (anchors.total, anchors.below_positive, anchors.below_negative, anchors.larger)
            own_anchors = AnchorCounts(*(int(column[label]) for column in compared))
        own_sides = ObjectSides(*(column[rows] for column in sides))
        views.append(_view(names[label], own_sides, own_drawn, own_anchors, image_size))
    return tuple(views)


def view_all(classes: Sequence[ClassView], sides: ObjectSides, image_size: int) -> ClassView:
    """Put all classes together."""
    drawn = DrawnCounts(*map(sum, zip(*(one.drawn for one in classes), strict=True)))
    anchors = AnchorCounts(*map(sum, zip(*(one.anchors for one in classes), strict=True)))
    return _view("all classes", sides, drawn, anchors, image_size)


def class_findings(classes: Sequence[ClassView]) -> list[Finding]:
    """Make a finding of every class and kind that costs accuracy."""
    return [Finding(kind, one.name, text) for one in classes for kind, text in one.troubles().items()]


def brief_lines(classes: Sequence[ClassView], all_classes: ClassView | None) -> list[str]:
    """Say for each kind in one line which classes are the worst."""
    lines = []
    for kind, beginning in BRIEF.items():
        worst = sorted((one for one in classes if kind in one.troubles()), key=lambda one: -one.fractions[kind])
        if not worst:
            continue
        names = ", ".join(f"{one.name} {one.fractions[kind]:.0%}" for one in worst[:NAMED_CLASSES])
        more = f" and {len(worst) - NAMED_CLASSES} classes more" if len(worst) > NAMED_CLASSES else ""
        size = all_classes.mending_size if all_classes and kind is SMALL_OBJECTS else None
        advice = f"from --image-size {size} on at most 5 % of all are" if size else kind.advice
        lines.append(f"{beginning}: {names}{more}; {advice}")
    return lines


def count_of(count: int, total: int) -> str:
    """Write a count with what it is a part of."""
    return f"{count:,} of {total:,} ({count / max(1, total):.1%})"


def _view(name: str, sides: ObjectSides, drawn: DrawnCounts, anchors: AnchorCounts, image_size: int) -> ClassView:
    return ClassView(
        name=name,
        objects=len(sides.labels),
        median_side=float(np.median(sides.sides)) if len(sides.labels) else 0.0,
        small=int(sides.below(SMALL_SIDE).sum()),
        tiny=int(sides.below(1.0).sum()),
        small_in_image=int((sides.image_sides < SMALL_SIDE).sum()),
        mending_size=mending_size(sides.sides, image_size),
        drawn=drawn,
        anchors=anchors,
    )


def _small(one: ClassView) -> str:
    tiny = f", {one.tiny:,} below 1" if one.tiny else ""
    mend = f"; --image-size {one.mending_size} mends it" if one.mending_size else ""
    if one.small_in_image > SMALL_FRACTION * one.objects:
        mend += f"; in the images themselves {one.small_in_image:,} are"
    return f"{count_of(one.small, one.objects)} objects below 8 pixels{tiny}{mend}"


def _dropped(one: ClassView) -> str:
    return f"{count_of(one.drawn.dropped, one.drawn.total)} objects dropped as smaller than a pixel in an epoch"


def _unfit(one: ClassView) -> str:
    larger = f", {one.anchors.larger:,} are larger than any" if one.anchors.larger else ""
    counted = count_of(one.anchors.below_negative, one.anchors.total)
    return f"{counted} objects have no anchor of their shape or size{larger}"
