"""ImageRows of a table of annotations, collected image by image, with the faults and findings on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.annotations import Annotations, ImageSource, ListedImage
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.invalid_entries import (
    INVALID_ANNOTATION,
    INVALID_ANNOTATION_FILE,
    MOST_INVALID,
    describe_invalid,
)
from boxwright.structures import Category

SWAPPED_CORNERS = FindingKind(
    "swapped_corners", "warning", "boxes whose left or top is beyond their right or bottom, corners swapped"
)
IMAGE_WITHOUT_ANNOTATION_FILE = FindingKind(
    "image_without_annotation_file",
    "note",
    "images without annotations left out",
    "an image without objects has annotations that are empty",
)
REPEATED_IMAGE = FindingKind("image_listed_twice", "warning", "images listed more than once in a split, used once")
MARKED_DIFFICULT = FindingKind(
    "marked_difficult", "note", "objects marked difficult, as crowd regions: not trained on, ignored in evaluation"
)
OTHER_IMAGE_NAME = FindingKind(
    "other_image_name", "note", "annotation files that name another image than their own, whose name counts"
)

Polygons = Sequence[Sequence[float]]
BoxCorners = tuple[float, float, float, float]

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class Faults:
    """Entries of a split that cannot be read, and are left out: findings, so that one does not hide the others.

    Args:
        path: of the annotations, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []

    def add_entry(self, subject: str, detail: str) -> None:
        """Take an annotation by the image or file that it is in, and its position and fault.

        Raises:
            ValueError: there are too many.
        """
        self.findings.append(Finding(INVALID_ANNOTATION, subject, detail))
        if len(self.findings) > MOST_INVALID:
            raise ValueError(
                f"{self.path}: over {MOST_INVALID:,} annotations cannot be read, the first: "
                f"{describe_invalid(self.findings[0])}"
            )

    def add_file(self, name: str, file: Path | str, error: Exception) -> None:
        """Take an annotation file by its name in reports, and an error whose message may begin with its path."""
        detail = str(error).removeprefix(str(file)).strip(": ")
        self.findings.append(Finding(INVALID_ANNOTATION_FILE, name, detail))

    def check_rest(self, rest: Sized) -> None:
        """Raise ``ValueError`` where there are faults, and nothing else."""
        if self.findings and not len(rest):
            more = len(self.findings) - 1
            others = f"; and {more:,} more" if more else ""
            raise ValueError(f"{self.path}: {describe_invalid(self.findings[0])}{others}, and nothing that can be read")


class ImageRows:
    """Images and objects of one split, in the order in which they are added.

    Args:
        categories: the classes; objects have their indices.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = tuple(categories)
        self.label_of = {category.name: label for label, category in enumerate(self.categories)}
        self.findings: list[Finding] = []
        self._images: list[ListedImage] = []
        self._index: list[int] = []
        self._labels: list[int] = []
        self._boxes: list[Sequence[float]] = []
        self._crowd: list[bool] = []
        self._area: list[float] = []
        self._polygons: list[Any] = []

    def find(self, kind: FindingKind, position: str, detail: str = "") -> None:
        """Take a finding."""
        self.findings.append(Finding(kind, position, detail))

    def add_image(self, file_name: str, size: tuple[int, int] | None = None, source: ImageSource | None = None) -> None:
        """Add an image, see ``ListedImage``; the objects added next are on it."""
        self._images.append(ListedImage(len(self._images) + 1, file_name, size, source))

    def add_object(self, label: int, corners: Sequence[float], polygons: Polygons = (), *, crowd: bool = False) -> None:
        """Add an object of the last image by its corners x1, y1, x2, y2."""
        x1, y1, x2, y2 = corners
        self._index.append(len(self._images) - 1)
        self._labels.append(label)
        self._boxes.append((x1, y1, x2 - x1, y2 - y1))
        self._crowd.append(crowd)
        self._area.append(sum(map(polygon_area, polygons)) if polygons else (x2 - x1) * (y2 - y1))
        self._polygons.append([list(one) for one in polygons] or None)

    def table(
        self,
        path: Path,
        image_folders: Sequence[Path],
        *,
        has_fractions: bool = False,
        has_category_ids: bool = True,
    ) -> Annotations:
        """Return the table; the arguments are fields of ``Annotations``."""
        has_polygons = any(self._polygons)
        return Annotations(
            path=path,
            image_folders=tuple(image_folders),
            categories=self.categories,
            images=tuple(self._images),
            image_index=np.array(self._index, dtype=np.int64),
            labels=np.array(self._labels, dtype=np.int64),
            bbox_xywh=np.array(self._boxes, dtype=np.float64).reshape(-1, 4),
            area=np.array(self._area, dtype=np.float64) if has_polygons else None,
            crowd=np.array(self._crowd, dtype=np.bool_) if any(self._crowd) else None,
            segmentations=tuple(self._polygons) if has_polygons else (),
            findings=tuple(self.findings),
            has_fractions=has_fractions,
            has_category_ids=has_category_ids,
        )


def number_of(text: str | None) -> float | None:
    """Return a finite number as it is written in a text file, or None."""
    if text is None or _NUMBER.fullmatch(text.strip()) is None:
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def order_corners(corners: Sequence[float]) -> tuple[BoxCorners, bool]:
    """Return the corners with the lesser x and y first, and whether they were swapped."""
    x1, y1, x2, y2 = corners
    ordered = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    return ordered, ordered != (x1, y1, x2, y2)


def bounds(polygons: Polygons) -> BoxCorners:
    """Return the corners of the box around polygons x, y, x, y ..."""
    xs = [x for one in polygons for x in one[0::2]]
    ys = [y for one in polygons for y in one[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon x, y, x, y ... by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    following = zip((*xs[1:], xs[0]), (*ys[1:], ys[0]), strict=True)
    return abs(sum(x * y2 - x2 * y for x, y, (x2, y2) in zip(xs, ys, following, strict=True))) / 2


def numbered(names: Sequence[str]) -> tuple[Category, ...]:
    """Return classes with ids from 1 on."""
    return tuple(Category(number, name) for number, name in enumerate(names, start=1))
