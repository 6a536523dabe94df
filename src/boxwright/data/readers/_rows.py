"""ImageRows of a table of annotations, collected image by image, with the faults and findings on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxwright.data.annotations import Annotations, ImageSource, ListedImage
from boxwright.data.findings import Finding, FindingKind
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
    """Faults of a data set, collected so that one error names the first ones and counts them all."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def add(self, fault: str) -> None:
        """Take a fault, one line that names file and position."""
        self._faults.append(fault)

    def check(self) -> None:
        """Raise ``ValueError`` if there is a fault."""
        if self._faults:
            more = len(self._faults) - 1
            second = f"; and {more:,} more, the next: {self._faults[1]}" if more else ""
            raise ValueError(f"{self._faults[0]}{second}")


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
