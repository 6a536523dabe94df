"""Entries of COCO annotation files, one by one, with their checks: categories, images and annotations."""

from __future__ import annotations

import reprlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from boxwright.data.annotations import ListedImage
from boxwright.data.findings import Finding
from boxwright.data.mask_file import SUFFIX
from boxwright.structures import Category

SPECIAL_KEYS: tuple[str, ...] = ()
"""Keys of annotations that are looked at beside COCO's own: entries with one of them are read here, one by one."""


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


class AnnotationEntry(NamedTuple):
    """One annotation of the file, checked.

    Args:
        id: its own.
        image_index: into the images of the file.
        category_id: its own; it is one of the file's.
        bbox: left, top, width and height.
        area: in square pixels; the box's where the file has none.
        crowd: True where it marks a group.
        segmentation: COCO polygons, an RLE, the name of a PNG file, or None.
    """

    id: int
    image_index: int
    category_id: int
    bbox: list[int | float]
    area: float
    crowd: bool
    segmentation: Any


class _InvalidEntryError(ValueError):
    """The fault of one entry; the caller adds the file and the entry."""


class EntryReader:
    """Reader of the entries of one file; what it leaves out or repairs is in ``findings``.

    Args:
        path: the annotation file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.categories: list[CategoryEntry] = []
        self.category_ids: frozenset[int] = frozenset()

    def read_categories(self, table: Sequence[dict[str, Any]]) -> None:
        """Read the table ``categories``.

        Raises:
            ValueError: names the first fault.
        """
        for position, entry in enumerate(table):
            above = entry.get("supercategory")
            try:
                self.categories.append(
                    CategoryEntry(_whole(entry, "id"), _text(entry, "name"), above if isinstance(above, str) else None)
                )
            except _InvalidEntryError as error:
                raise ValueError(f"{self.path}: categories[{position}]: {error}") from None
        self._check_unique("category id", (category.id for category in self.categories))
        self._check_unique("category name", (category.name for category in self.categories))
        self.category_ids = frozenset(category.id for category in self.categories)

    def read_images(self, table: Sequence[dict[str, Any]]) -> list[ListedImage]:
        """Read the table ``images``.

        Raises:
            ValueError: names the first fault.
        """
        images = []
        for position, entry in enumerate(table):
            try:
                images.append(ListedImage(_whole(entry, "id"), _file_name(entry), _size(entry)))
            except _InvalidEntryError as error:
                raise ValueError(f"{self.path}: images[{position}]: {error}") from None
        self._check_unique("image id", (image.id for image in images))
        return images

    def read_annotations(
        self,
        table: Sequence[dict[str, Any]],
        start: int,
        images: Sequence[ListedImage],
        index_of: Mapping[int, int],
    ) -> list[AnnotationEntry]:
        """Read a part of the table ``annotations``, after the categories.

        Args:
            table: some entries, in their order.
            start: position of the first of them in the whole table.
            images: of the file.
            index_of: image id to its index in ``images``.

        Returns:
            The annotations that are used, in their order.

        Raises:
            ValueError: names the first fault.
        """
        rows = []
        for position, entry in enumerate(table, start):
            try:
                rows.append(_annotation(entry, index_of, self.category_ids))
            except _InvalidEntryError as error:
                name = f"annotation {reprlib.repr(entry['id'])}" if "id" in entry else f"annotations[{position}]"
                image_id = entry.get("image_id")
                if isinstance(image_id, int) and image_id in index_of:
                    name += f" of image {images[index_of[image_id]].file_name!r}"
                raise ValueError(f"{self.path}: {name}: {error}") from None
        return rows

    def settle_annotation_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Return unique ids of all annotations, in their order.

        Args:
            ids: of the annotations that are used, as they stand in the file; some occur more than once.

        Raises:
            ValueError: they cannot be made unique.
        """
        self._check_unique("annotation id", ids)
        return ids

    def number_classes(self, counts: Mapping[int, int]) -> tuple[tuple[Category, ...], dict[int, int]]:
        """Make classes of the categories, when the annotations are known.

        Args:
            counts: annotations of each category id; no entry where there are none.

        Returns:
            The classes, sorted by id, and the label of each category id that has annotations.

        Raises:
            ValueError: categories contradict each other.
        """
        unknown = counts.keys() - self.category_ids
        assert not unknown, unknown  # read_annotations has checked them
        categories = tuple(
            Category(entry.id, entry.name) for entry in sorted(self.categories, key=lambda entry: entry.id)
        )
        return categories, {category.id: label for label, category in enumerate(categories)}

    def _check_unique(self, what: str, values: Iterable[int | str]) -> None:
        repeated = [value for value, times in Counter(values).items() if times > 1]
        if repeated:
            first = ", ".join(map(reprlib.repr, repeated[:3])) + (", ..." if len(repeated) > 3 else "")
            raise ValueError(f"{self.path}: {len(repeated)} {what}(s) occur more than once: {first}; make them unique")


def _annotation(entry: dict[str, Any], index_of: Mapping[int, int], category_ids: frozenset[int]) -> AnnotationEntry:
    annotation_id = _whole(entry, "id")
    image_id = _whole(entry, "image_id")
    if image_id not in index_of:
        raise _InvalidEntryError(f"image_id {image_id} is not in 'images'; add the image or delete the annotation")
    category_id = _whole(entry, "category_id")
    if category_id not in category_ids:
        raise _InvalidEntryError(
            f"category_id {category_id} is not in 'categories'; add the category or delete the annotation"
        )
    bbox = entry.get("bbox")
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_finite, bbox))):
        raise _InvalidEntryError(
            "bbox must be four finite numbers [left, top, width, height], "
            f"not {reprlib.repr(bbox)}; correct or delete the annotation"
        )
    area = entry.get("area")
    if area is None:
        area = float(bbox[2]) * float(bbox[3])
    elif not _is_finite(area):
        raise _InvalidEntryError(f"area must be a finite number, not {reprlib.repr(area)}; correct or leave it out")
    crowd = entry.get("iscrowd")
    if crowd not in (None, 0, 1):
        raise _InvalidEntryError(f"iscrowd must be 0 or 1, not {reprlib.repr(crowd)}")
    return AnnotationEntry(
        annotation_id, index_of[image_id], category_id, bbox, area, bool(crowd), _segmentation(entry)
    )


def _segmentation(entry: dict[str, Any]) -> Any:
    segmentation = entry.get("segmentation") or None
    if isinstance(segmentation, str) and segmentation.lower().endswith(SUFFIX):
        return _file_name(entry, "segmentation")
    if not (segmentation is None or isinstance(segmentation, list | dict)):
        raise _InvalidEntryError(
            f"segmentation must be polygons, an RLE or the name of a PNG file, not {reprlib.repr(segmentation)}; "
            "correct it or leave it out"
        )
    return segmentation


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if type(value) is not int:  # JSON's true is an int to isinstance
        wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
        raise _InvalidEntryError(f"{key!r} must be a whole number, {wrong}")
    return value


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        wrong = f"not {reprlib.repr(value)}" if key in entry else "and is missing"
        raise _InvalidEntryError(f"{key!r} must be a text that is not empty, {wrong}")
    return value


def _file_name(entry: dict[str, Any], key: str = "file_name") -> str:
    name = _text(entry, key).replace("\\", "/")  # as exported on Windows
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
        raise _InvalidEntryError(
            f"{key!r} {reprlib.repr(name)} leaves the image folder; give a path inside that folder"
        )
    return name


def _size(entry: dict[str, Any]) -> tuple[int, int] | None:
    if entry.get("height") is None or entry.get("width") is None:
        return None
    return _whole(entry, "height"), _whole(entry, "width")


def _is_finite(value: Any) -> bool:
    # By comparison, because a whole number may be too large for math.isfinite; NaN fails every comparison.
    return type(value) in (int, float) and -sys.float_info.max <= value <= sys.float_info.max
