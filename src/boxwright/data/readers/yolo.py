"""YOLO: data.yaml with images/train/ and labels/train/, lists of images, or labels beside the images."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.readers._image_files import common_folder, subtract_files
from boxwright.data.readers._rows import REPEATED_IMAGE, Faults, ImageRows
from boxwright.data.readers._yolo_label_files import LabelFiles, find_label_files
from boxwright.data.readers._yolo_labels import YoloObject, parse_labels
from boxwright.data.readers._yolo_layouts import YoloSplit, find_paths_to_nothing, find_yolo_splits
from boxwright.data.readers._yolo_lists import list_images
from boxwright.data.readers._yolo_yaml import find_names, find_yaml, read_names, read_yaml
from boxwright.data.split_names import canonical_split, sort_splits
from boxwright.data.table_memory import remember_table
from boxwright.structures import Category, Task

TASK: Task = "detection"

LABELS_WITHOUT_IMAGE = FindingKind(
    "labels_without_image", "warning", "label files without an image left out", "restore the images"
)
SHARED_LABELS = FindingKind(
    "shared_labels",
    "warning",
    "label files of several images, whose objects count on each of them",
    "rename or remove all but one of the images",
)
REPEATED_CLASS_NAME = FindingKind(
    "repeated_class_name", "warning", "names of several classes, of which at most one has objects, merged"
)
CLASSES_WITHOUT_NAMES = FindingKind(
    "classes_without_names",
    "note",
    "classes that have no name, called by their numbers",
    "write a data.yaml with names, or classes.txt",
)


def recognizes(folder: Path) -> bool:
    """Return True where the folder has a data.yaml, or label files in one of the known layouts."""
    return bool(_safe_splits(folder)) or find_yaml(folder) is not None


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first."""
    return sort_splits(_safe_splits(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split: boxes and polygons, in any mixture; an image without label file has no objects.

    Lines that cannot be read, and label files with their images, are left out, and findings name them.

    Raises:
        ValueError: there is no such split, or data.yaml or no label file can be read.
    """
    chosen = _find(folder, split)
    file = find_yaml(folder)
    described = read_yaml(file) if file is not None else None
    findings = [*chosen.findings, *(described.findings if described is not None else ())]
    images = [image for source in chosen.sources for image in list_images(source, folder, findings)]
    if not images:
        raise ValueError(f"{chosen.sources[0]}: there is no image in it")
    for image, count in Counter(images).items():
        if count > 1:
            findings.append(Finding(REPEATED_IMAGE, os.path.basename(image), f"{count} times"))
    images = list(dict.fromkeys(images))
    labels = LabelFiles(folder)
    label_of = [labels.find(image) for image in images]
    findings += _shared_labels(images, label_of)
    findings += [Finding(LABELS_WITHOUT_IMAGE, os.path.basename(path)) for path in labels.without_image()]
    categories = described.categories if described is not None else _categories(folder, chosen)
    others = [] if categories else _labels_of_others(folder, chosen)
    image_folder, names = common_folder(images)
    has_key_points = described is not None and described.has_key_points
    ids = described.category_ids if described is not None else {}

    def parse() -> Annotations:
        faults = Faults(chosen.sources[0])
        of_labels: list[Finding] = []
        objects = {
            name: _objects(path, has_key_points, of_labels, faults) for name, path in zip(names, label_of, strict=True)
        }
        rows = {name: of_image for name, of_image in objects.items() if of_image is not None}
        faults.check_rest(rows)
        classes = categories or _numbered(folder, [*rows.values()], others, of_labels)
        return _table(image_folder, rows, classes, ids, of_labels, faults)

    table = remember_table(
        chosen.sources[0],
        (image_folder,),
        parse,
        files=[path for path in (*label_of, *others) if path is not None],
        facts=(
            "yolo",
            f"{has_key_points} {categories} {ids}",
            *names,
            *(path or "" for path in label_of),
        ),
    )
    return replace(table, findings=(*findings, *table.findings))


def unread_files(folder: Path) -> list[Path]:
    """List the label files of a folder that belong to no image of a split, but for those that ``read`` names."""
    splits = _safe_splits(folder)
    if not splits:
        return []
    labels = LabelFiles(folder)
    known = {*_label_files(folder, splits.values(), labels), *labels.without_image()}
    return subtract_files(find_label_files(folder), known)


def _safe_splits(folder: Path) -> dict[str, YoloSplit]:
    try:
        return find_yolo_splits(folder)
    except (OSError, ValueError):
        return {}


def _find(folder: Path, split: str) -> YoloSplit:
    existing = find_yolo_splits(folder)
    name = canonical_split(split.strip("/"))
    if name in existing:
        return existing[name]
    file = find_yaml(folder)
    gone = find_paths_to_nothing(read_yaml(file), name) if file is not None else ()
    if gone:
        raise ValueError(
            f"no split {split!r} in {folder}: {gone[0].detail} is {gone[0].subject!r}, which leads to no folder and no "
            "list (.txt); correct the path"
        )
    there = f"its splits are {', '.join(sort_splits(existing))}" if existing else "none of its paths exists"
    raise ValueError(
        f"no split {split!r} in {folder}: looked for {name} in data.yaml, images/{name}/, {name}/images/ and "
        f"{name}.txt; {there}"
    )


def _objects(
    path: str | None, has_key_points: bool, findings: list[Finding], faults: Faults
) -> list[YoloObject] | None:
    """Return the objects of a label file; None where it cannot be read."""
    if path is None:
        return []
    name = os.path.basename(path)

    def find(kind: FindingKind, detail: str) -> None:
        findings.append(Finding(kind, name, detail))

    lines: list[str] = []
    try:
        objects = parse_labels(Path(path), has_key_points=has_key_points, find=find, fault=lines.append)
    except (OSError, ValueError) as error:
        faults.add_file(name, path, error)
        return None
    for line in lines:
        faults.add_entry(name, line)
    return objects


def _shared_labels(images: Sequence[str], label_of: Sequence[str | None]) -> list[Finding]:
    """Name label files that belong to several images, as ``a.txt`` to ``a.jpg`` and ``a.png``."""
    counts = Counter(path for path in label_of if path is not None)
    shared: dict[str, list[str]] = {path: [] for path, count in counts.items() if count > 1}
    for image, path in zip(images, label_of, strict=True) if shared else ():
        if path in shared:
            shared[path].append(os.path.basename(image))
    return [Finding(SHARED_LABELS, os.path.basename(path), ", ".join(names)) for path, names in shared.items()]


def _categories(folder: Path, split: YoloSplit) -> tuple[Category, ...]:
    """Return the classes of a folder without data.yaml; none where no file names them."""
    beside = [source if source.is_dir() else source.parent for source in split.sources]
    file = find_names(folder, [folder / "labels", *beside, *(path.parent / "labels" for path in beside)])
    return read_names(file) if file is not None else ()


def _labels_of_others(folder: Path, split: YoloSplit) -> list[str]:
    """List the label files of the other splits, whose classes without names are numbered alike."""
    return _label_files(folder, [one for one in _safe_splits(folder).values() if one != split], LabelFiles(folder))


def _label_files(folder: Path, splits: Iterable[YoloSplit], labels: LabelFiles) -> list[str]:
    """List the label files of splits; a list that cannot be read is an error only where its split is opened."""
    files = []
    for source in (source for split in splits for source in split.sources):
        with contextlib.suppress(ValueError):
            files += [path for image in list_images(source, folder, []) if (path := labels.find(image)) is not None]
    return files


def _numbered(
    folder: Path, objects: Sequence[list[YoloObject]], others: Sequence[str], findings: list[Finding]
) -> tuple[Category, ...]:
    """Return classes that are called by their numbers."""
    of_others = (one for path in others for one in _objects(path, False, [], Faults(folder)) or ())
    most = max((one.number for of_image in (*objects, of_others) for one in of_image), default=-1)
    if most >= 10_000:
        raise ValueError(f"{folder}: class {most:,} in a set without class names; write a data.yaml with names")
    findings += [Finding(CLASSES_WITHOUT_NAMES, str(number)) for number in range(most + 1)]
    return tuple(Category(number, str(number)) for number in range(max(most + 1, 1)))


def _table(
    folder: Path,
    objects: Mapping[str, list[YoloObject]],
    categories: Sequence[Category],
    category_ids: Mapping[int, int],
    findings: list[Finding],
    faults: Faults,
) -> Annotations:
    """Make the table of the images in a folder, by their names."""
    merged = _merge_names(faults.path, categories, [*objects.values()], findings)
    rows = ImageRows([Category(category_ids.get(one.id, one.id), one.name) for one in merged])
    label_of = {category.id: rows.label_of[category.name] for category in categories}
    for name, of_image in objects.items():
        rows.add_image(name)
        for one in of_image:
            label = label_of.get(one.number)
            if label is None:
                faults.add_entry(
                    f"labels of {name}",
                    f"class {one.number} is not in the {len(categories)} names ({categories[0].id} to "
                    f"{categories[-1].id}); add its name or delete its lines",
                )
            else:
                rows.add_object(label, one.corners, (one.polygon,) if one.polygon else ())
    rows.findings += [*findings, *faults.findings]
    return rows.table(faults.path, (folder,), has_fractions=True)


def _merge_names(
    source: Path,
    categories: Sequence[Category],
    objects: Sequence[list[YoloObject]],
    findings: list[Finding],
) -> list[Category]:
    """Return classes of different names: of two with one name, the first, if only one of them has objects."""
    counts = Counter(one.number for of_image in objects for one in of_image)
    same: dict[str, list[int]] = {}
    for category in categories:
        same.setdefault(category.name, []).append(category.id)
    for name, numbers in same.items():
        if sum(counts[number] > 0 for number in numbers) > 1:
            described = ", ".join(f"{number} with {counts[number]:,} objects" for number in numbers)
            raise ValueError(f"{source}: several classes are called {name!r}: {described}; rename all but one")
        if len(numbers) > 1:
            findings.append(Finding(REPEATED_CLASS_NAME, name, f"numbers {', '.join(map(str, numbers))}"))
    return [category for category in categories if same[category.name][0] == category.id]
