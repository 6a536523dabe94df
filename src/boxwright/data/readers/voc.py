"""Pascal VOC: Annotations/*.xml with ImageSets/Main/train.txt and JPEGImages/, or train/*.xml beside the images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from boxwright.data.annotations import Annotations
from boxwright.data.findings import FindingKind
from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._image_files import ImageFiles, compose_name, likeliest_images, posix
from boxwright.data.readers._rows import (
    IMAGE_WITHOUT_ANNOTATION_FILE,
    MARKED_DIFFICULT,
    OTHER_IMAGE_NAME,
    REPEATED_IMAGE,
    Faults,
    ImageRows,
    numbered,
)
from boxwright.data.readers._voc_layouts import (
    VocSplit,
    annotation_files,
    find_voc_split,
    find_voc_splits,
    listed_names,
    stem_of,
)
from boxwright.data.readers._voc_xml import VocFile, parse_voc
from boxwright.data.split_names import sort_splits
from boxwright.structures import Task

TASK: Task = "detection"

_NO_CLASS = ("# label:color_rgb:parts:actions", "background:0,0,0::")
"""Lines of labelmap.txt that CVAT always writes."""

LISTED_WITHOUT_FILE = FindingKind(
    "listed_without_annotation_file",
    "warning",
    "images in the list of a split that have no annotation file left out",
    "an image without objects has an annotation file without objects",
)


def recognizes(folder: Path) -> bool:
    """Return True where the folder has annotation files in one of the known layouts."""
    return bool(find_voc_splits(folder))


def splits(folder: Path) -> list[str]:
    """Return the names of the splits: train, val and test first; trainval only where train is not there."""
    return sort_splits(find_voc_splits(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split.

    Boxes are from xmin, ymin to xmax, ymax as they stand in the file; nothing is subtracted. Objects that are marked
    difficult are crowd regions. Classes are those of labelmap.txt, in its order, or else those of all splits in
    alphabetical order.

    Raises:
        ValueError: there is no such split, or annotation files cannot be read.
    """
    chosen = find_voc_split(folder, split)
    faults = Faults()
    splits_of = {chosen: _listed_files(chosen)}
    splits_of |= {one: _listed_files(one) for one in find_voc_splits(folder).values() if one != chosen}
    listed = splits_of[chosen]
    parsed = {path: _parse(path, faults) for paths in splits_of.values() for path in paths.values() if path is not None}
    faults.check()
    classes = {one.name for file in parsed.values() if file is not None for one in file.objects}
    own = {name: parsed[path] for name, path in listed.items() if path is not None}
    rows = ImageRows(numbered(_class_names(chosen, folder, classes)))
    for name, path in listed.items():
        if path is None:
            rows.find(LISTED_WITHOUT_FILE, name)
    images = likeliest_images(chosen.image_folders, [*own])
    for name, file in own.items():
        assert file is not None
        _add(rows, images, name, file)
    if chosen.list_file is None:
        _name_images_without_files(rows, images, own)
    if chosen.list_file is not None:
        for name, count in Counter(map(stem_of, listed_names(chosen.list_file))).items():
            if count > 1:
                rows.find(REPEATED_IMAGE, name, f"{count} times")
    return rows.table(chosen.path, (images.folder,), has_category_ids=False)


def _listed_files(split: VocSplit) -> dict[str, Path | None]:
    """Return the annotation file of each image of a split by its name without suffix; None where it has none."""
    files = annotation_files(split.annotations)
    if split.list_file is None:
        return dict(files)
    listed: dict[str, Path | None] = {}
    for line in listed_names(split.list_file):
        # A name may end in what looks like a suffix, or like the mark -1, 0 or 1 that some lists have behind it.
        forms = (compose_name(posix(line)), stem_of(line), stem_of(re.sub(r"(?<=\S)\s+(-1|0|1)$", "", line)))
        name = next((form for form in forms if form in files), forms[-1])
        listed[name] = files.get(name)
    return listed


def _parse(path: Path, faults: Faults) -> VocFile | None:
    try:
        return parse_voc(path)
    except ValueError as error:
        faults.add(str(error))
        return None


def _class_names(split: VocSplit, folder: Path, classes: set[str]) -> list[str]:
    """Return the names in labelmap.txt, as CVAT exports it, and all others after them."""
    named: list[str] = []
    for parent in dict.fromkeys((split.annotations.parent, folder)):  # name:color:parts:actions
        file = parent / "labelmap.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            lines = [line for line in lines if line.count(":") >= 3 and line not in _NO_CLASS]
            entries = [line.rsplit(":", 3)[0] for line in lines]
            named = list(dict.fromkeys(map(compose_name, entries)))
            break
    known = [name for name in named if name]
    return [*known, *sorted(classes - set(known))]


def _add(rows: ImageRows, images: ImageFiles, name: str, file: VocFile) -> None:
    """Add the image of an annotation file, and its objects."""
    suffix = PurePosixPath(posix(file.image_name)).suffix if file.image_name else ""
    image = images.find_stem(name, suffix)
    if image is None:
        image = name + (suffix if suffix.lower() in SUFFIXES else ".jpg")
    named = stem_of(file.image_name)
    if file.image_name and PurePosixPath(named).name not in (PurePosixPath(name).name, file.image_name):
        rows.find(OTHER_IMAGE_NAME, f"{name}.xml", file.image_name)
    rows.add_image(image, file.size)
    for kind, detail in file.findings:
        rows.find(kind, f"{name}.xml", detail)
    label_of = rows.label_of
    for number, one in enumerate(file.objects, start=1):
        rows.add_object(label_of[one.name], one.corners, one.polygons, crowd=one.difficult)
        if one.difficult:
            rows.find(MARKED_DIFFICULT, f"{name}.xml", f"object {number}: {one.name}")


def _name_images_without_files(rows: ImageRows, images: ImageFiles, files: Iterable[str]) -> None:
    known = {PurePosixPath(name).name for name in files}
    for image in images.names:
        if PurePosixPath(compose_name(image)).stem not in known:
            rows.find(IMAGE_WITHOUT_ANNOTATION_FILE, image)
