"""Entries of COCO annotation files, one by one, with their checks: categories, images and annotations."""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

from boxwright.data.annotations import ListedImage
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.invalid_entries import INVALID_ANNOTATION, MOST_INVALID, describe_invalid
from boxwright.data.mask_file import SUFFIX
from boxwright.data.readers._coco_classes import CategoryEntry, number_categories
from boxwright.data.readers._coco_values import CROWD_KEYS, InvalidEntryError, ValueReader, is_text_id, polygon_bounds
from boxwright.structures import Category
from boxwright_runtime.printable_names import printable

SPECIAL_KEYS: tuple[str, ...] = CROWD_KEYS[1:]
"""Keys of annotations that are looked at beside COCO's own: entries with one of them are read here, one by one."""

REPEATED_IMAGE_ENTRY = FindingKind("repeated_image_entry", "note", "images listed twice with one id and file, merged")
REPEATED_CATEGORY_ENTRY = FindingKind(
    "repeated_category_entry", "note", "categories listed twice with one id and name, merged"
)
ANNOTATIONS_RENUMBERED = FindingKind(
    "annotations_renumbered", "note", "annotation files whose annotation ids occur more than once, renumbered"
)
INVALID_IMAGE_ENTRY = FindingKind(
    "invalid_image_entry", "error", "entries of images that cannot be read", "correct or delete them"
)

_NAME_KEYS = ("file_name", "filename", "fileName", "path", "coco_url", "url")


class AnnotationEntry(NamedTuple):
    """One annotation of the file, checked.

    Args:
        id: its own, or its position in the file, from 1, where it has none.
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


class EntryReader:
    """Reader of the entries of one file.

    Args:
        path: the annotation file, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.categories: list[CategoryEntry] = []
        self.category_ids: frozenset[int] = frozenset()
        self._values = ValueReader()
        self._findings: list[Finding] = []
        self._invalid: list[Finding] = []
        self._number_of_text_id: dict[str, int] = {}

    @property
    def findings(self) -> list[Finding]:
        """Entries that were left out, repaired or read in another form than COCO's."""
        return [*self._findings, *self._invalid, *self._values.findings()]

    def read_categories(self, table: Sequence[dict[str, Any]]) -> None:
        """Read the table ``categories``.

        Raises:
            ValueError: names the first fault.
        """
        values = self._values
        for position, entry in enumerate(table):
            above = entry.get("supercategory")
            try:
                category = CategoryEntry(
                    values.whole(entry, "id"), values.text(entry, "name"), above if isinstance(above, str) else None
                )
            except InvalidEntryError as error:
                raise ValueError(f"{self.path}: categories[{position}]: {error}") from None
            if any(category[:2] == other[:2] for other in self.categories if other.id == category.id):
                self._findings.append(Finding(REPEATED_CATEGORY_ENTRY, repr(category.name), f"id {category.id}"))
            else:
                self.categories.append(category)
        self._check_unique("category id", (category.id for category in self.categories))
        self.category_ids = frozenset(category.id for category in self.categories)

    def read_images(self, table: Sequence[dict[str, Any]]) -> list[ListedImage]:
        """Read the table ``images``; entries that cannot be read are findings, and left out.

        Raises:
            ValueError: none can be read, or one id stands for several files.
        """
        images: dict[int | str, ListedImage] = {}
        for position, entry in enumerate(table):
            try:
                image_id, image = self._image(entry)
            except InvalidEntryError as error:
                self._findings.append(Finding(INVALID_IMAGE_ENTRY, f"images[{position}]", str(error)))
                continue
            other = images.setdefault(image_id, image)
            if other is not image:
                if other.file_name != image.file_name:
                    raise ValueError(
                        f"{self.path}: image id {reprlib.repr(image_id)} occurs more than once, for "
                        f"{printable(other.file_name)} and {printable(image.file_name)}; make the ids unique"
                    )
                self._findings.append(Finding(REPEATED_IMAGE_ENTRY, image.file_name, f"id {image_id}"))
        if not images:
            raise ValueError(f"{self.path}: {self._findings[-1].subject}: {self._findings[-1].detail}")
        next_id = max((image_id for image_id in images if isinstance(image_id, int)), default=0) + 1
        texts = [image_id for image_id in images if isinstance(image_id, str)]
        self._number_of_text_id = {text: number for number, text in enumerate(texts, start=next_id)}
        return [
            image if isinstance(image_id, int) else image._replace(id=self._number_of_text_id[image_id])
            for image_id, image in images.items()
        ]

    def _image(self, entry: dict[str, Any]) -> tuple[int | str, ListedImage]:
        image_id: Any = entry.get("id")
        if is_text_id(image_id):
            self._values.count("id of images as text that is no number, numbered", image_id)
        else:
            image_id = self._values.whole(entry, "id")
        key = next((key for key in _NAME_KEYS if entry.get(key) is not None), _NAME_KEYS[0])
        name = self._values.text(entry, key)
        if key != _NAME_KEYS[0]:
            self._values.count(f"{key} in place of file_name", name)
        number = image_id if isinstance(image_id, int) else 0
        return image_id, ListedImage(number, name, self._values.size(entry))

    def read_annotations(
        self,
        table: Sequence[dict[str, Any]],
        start: int,
        images: Sequence[ListedImage],
        index_of: Mapping[int, int],
    ) -> list[AnnotationEntry]:
        """Read a part of the table ``annotations``, after the categories and images.

        Those that cannot be read are findings, and left out.

        Args:
            table: some entries, in their order.
            start: position of the first of them in the whole table.
            images: of the file.
            index_of: image id to its index in ``images``.

        Returns:
            The annotations that are used, in their order.

        Raises:
            ValueError: nearly none can be read.
        """
        rows = []
        for position, entry in enumerate(table, start):
            try:
                rows.append(self._annotation(entry, position, index_of))
            except InvalidEntryError as error:
                self._take_invalid(entry, position, error, images, index_of)
        return rows

    def _take_invalid(
        self,
        entry: dict[str, Any],
        position: int,
        error: InvalidEntryError,
        images: Sequence[ListedImage],
        index_of: Mapping[int, int],
    ) -> None:
        name = f"annotation {reprlib.repr(entry['id'])}" if "id" in entry else f"annotations[{position}]"
        image_id = entry.get("image_id")
        if isinstance(image_id, int) and image_id in index_of:
            file_name = images[index_of[image_id]].file_name
            self._invalid.append(Finding(INVALID_ANNOTATION, file_name, f"{name}: {error}"))
        else:
            self._invalid.append(Finding(INVALID_ANNOTATION, name, str(error)))
        if len(self._invalid) > MOST_INVALID:
            raise ValueError(
                f"{self.path}: over {MOST_INVALID:,} annotations cannot be read, the first: "
                f"{describe_invalid(self._invalid[0])}"
            )

    def _annotation(self, entry: dict[str, Any], position: int, index_of: Mapping[int, int]) -> AnnotationEntry:
        values = self._values
        image_id = self._image_id(entry)
        if image_id not in index_of:
            raise InvalidEntryError(
                f"image_id {reprlib.repr(image_id)} is not in 'images'; add the image or delete the annotation"
            )
        category_id = values.whole(entry, "category_id")
        if category_id not in self.category_ids:
            raise InvalidEntryError(
                f"category_id {reprlib.repr(category_id)} is not in 'categories'; "
                "add the category or delete the annotation"
            )
        segmentation = self._segmentation(entry)
        bbox = self._box(entry, segmentation)
        area = entry.get("area")
        if area is None:
            area = float(bbox[2]) * float(bbox[3])
        elif (number := values.number(area, "area")) is not None:
            area = number
        else:
            raise InvalidEntryError(f"area must be a finite number, not {reprlib.repr(area)}; correct or leave it out")
        return AnnotationEntry(
            self._annotation_id(entry, position),
            index_of[image_id],
            category_id,
            bbox,
            area,
            values.crowd(entry),
            segmentation,
        )

    def _annotation_id(self, entry: dict[str, Any], position: int) -> int:
        value = entry.get("id")
        if value is None:
            self._values.count("annotations without id, numbered", value)
        elif is_text_id(value):
            self._values.count("id of annotations as text that is no number, numbered", value)
        else:
            return self._values.whole(entry, "id")
        return position + 1

    def _image_id(self, entry: dict[str, Any]) -> int:
        image_id = entry.get("image_id")
        if isinstance(image_id, str) and image_id in self._number_of_text_id:
            return self._number_of_text_id[image_id]
        return self._values.whole(entry, "image_id")

    def _box(self, entry: dict[str, Any], segmentation: Any) -> list[int | float]:
        bbox = entry.get("bbox")
        box = self._values.box(bbox)
        if box is None and bbox in (None, []):
            box = polygon_bounds(segmentation)
            if box is not None:
                self._values.count("annotations without bbox, whose polygons give it", entry.get("id"))
        if box is None:
            raise InvalidEntryError(
                "bbox must be four finite numbers [left, top, width, height], "
                f"not {reprlib.repr(bbox)}; correct or delete the annotation"
            )
        return box

    def _segmentation(self, entry: dict[str, Any]) -> Any:
        segmentation = entry.get("segmentation") or None
        if isinstance(segmentation, str) and segmentation.lower().endswith(SUFFIX):
            return _mask_name(segmentation)
        if not (segmentation is None or isinstance(segmentation, list | dict)):
            raise InvalidEntryError(
                f"segmentation must be polygons, an RLE or the name of a PNG file, not {reprlib.repr(segmentation)}; "
                "correct it or leave it out"
            )
        if isinstance(segmentation, list) and all(type(one) in (int, float) for one in segmentation):
            self._values.count("segmentation as one polygon, not a list of polygons", segmentation)
            return [segmentation]
        return segmentation

    def settle_annotation_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Return unique ids of all annotations, in their order.

        Args:
            ids: of the annotations that are used, as they stand in the file; some occur more than once. The first
                with an id keeps it, others get the numbers after the largest.
        """
        seen: set[int] = set()
        settled, repeated = [], []
        next_id = max(ids, default=0) + 1
        for one in ids:
            if one in seen:
                repeated.append(one)
                settled.append(next_id)
                next_id += 1
            else:
                seen.add(one)
                settled.append(one)
        if repeated:
            first = ", ".join(map(reprlib.repr, list(dict.fromkeys(repeated))[:3]))
            detail = f"{len(repeated):,} of {len(ids):,}, ids {first}{', ...' if len(repeated) > 3 else ''}"
            self._findings.append(Finding(ANNOTATIONS_RENUMBERED, self.path.name, detail))
        return settled

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
        classes = number_categories(self.path, self.categories, counts)
        self._findings += classes.findings
        return classes.categories, classes.label_of

    def _check_unique(self, what: str, values: Iterable[int | str]) -> None:
        repeated = [value for value, times in Counter(values).items() if times > 1]
        if repeated:
            first = ", ".join(map(reprlib.repr, repeated[:3])) + (", ..." if len(repeated) > 3 else "")
            raise ValueError(f"{self.path}: {len(repeated)} {what}(s) occur more than once: {first}; make them unique")


def _mask_name(value: str) -> str:
    name = value.replace("\\", "/")  # as exported on Windows
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in PurePosixPath(name).parts:
        raise InvalidEntryError(
            f"'segmentation' {reprlib.repr(name)} leaves the image folder; give a path inside that folder"
        )
    return name
