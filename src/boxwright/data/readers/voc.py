"""Pascal VOC: Annotations/*.xml with ImageSets/Main/train.txt and JPEGImages/, or train/*.xml beside the images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from boxwright.data.annotations import Annotations
from boxwright.data.findings import Finding, FindingKind
from boxwright.data.image_check import SUFFIXES
from boxwright.data.readers._image_files import (
    ImageFiles,
    compose_name,
    is_image_name,
    likeliest_images,
    posix,
    subtract_files,
    walk_files,
)
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
    looks_like_voc,
    stem_of,
    without_mark,
)
from boxwright.data.readers._voc_xml import VocFile, parse_voc
from boxwright.data.split_names import sort_splits
from boxwright.data.table_memory import remember_table
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
    """Return the names of the splits: train, val and test first; trainval only where it is not train and val."""
    return sort_splits(find_voc_splits(folder))


def read(folder: Path, split: str) -> Annotations:
    """Read one split.

    Boxes are from xmin, ymin to xmax, ymax as they stand in the file; nothing is subtracted. Objects that are marked
    difficult are crowd regions. Classes are those of labelmap.txt, in its order, or else those of all splits in
    alphabetical order. Objects and files that cannot be read are left out, and findings name them.

    Raises:
        ValueError: there is no such split, or no annotation file can be read.
    """
    chosen = find_voc_split(folder, split)
    splits_of = {chosen: _listed_files(chosen)}
    splits_of |= {one: _listed_files(one) for one in find_voc_splits(folder).values() if one != chosen}
    listed = splits_of[chosen]
    files = list(dict.fromkeys(path for paths in splits_of.values() for path, _ in paths.values() if path is not None))
    own = {name: path for name, (path, _) in listed.items() if path is not None}
    images = likeliest_images(chosen.image_folders, [*own])
    names = _class_names(chosen, folder)

    def parse() -> Annotations:
        faults = Faults(chosen.path)
        of_others = Faults(chosen.path)
        name_of = {path: name for name, path in own.items()}
        parsed = {
            path: _parse(path, name_of.get(path, path), faults if path in name_of else of_others) for path in files
        }
        faults.check_rest([path for path in name_of if parsed[path] is not None])
        classes = {one.name for file in parsed.values() if file is not None for one in file.objects}
        rows = ImageRows(numbered([*names, *sorted(classes - set(names))]))
        rows.findings += faults.findings
        used = set()
        for name, path in own.items():
            file = parsed[path]
            used.add(_add(rows, images, name, file) if file is not None else images.find_stem(name, "") or name)
        if chosen.list_file is None:
            _name_images_without_files(rows, images, used)
        return rows.table(chosen.path, (images.folder,), has_category_ids=False)

    facts = ("voc", f"{chosen.list_file is None} {names}", *own, "", *own.values(), "", *images.names)
    table = remember_table(chosen.path, (images.folder,), parse, files=files, facts=facts)
    return replace(table, findings=(*chosen.findings, *_list_findings(listed), *table.findings))


def unread_files(folder: Path) -> list[Path]:
    """List the annotation files of a folder that belong to no split."""
    known = [path for split in find_voc_splits(folder).values() for path in _read_files(split)]
    names = sorted(name for name in walk_files(folder) if name.lower().endswith(".xml")) if known else []
    files = [os.path.join(folder, name) for name in names]
    return [path for path in subtract_files(files, known) if looks_like_voc(path)]


def _read_files(split: VocSplit) -> list[str]:
    try:
        return [path for path, _ in _listed_files(split).values() if path is not None]
    except ValueError:  # a list that is no text, which is an error where its split is opened
        return []


def _listed_files(split: VocSplit) -> dict[str, tuple[str | None, int]]:
    """Return the annotation file of each image of a split by its name without suffix, and how often it is listed.

    The file is None where the image has none.
    """
    files = annotation_files(split.annotations)
    if split.list_file is None:
        return {name: (path, 1) for name, path in files.items()}
    listed: dict[str, tuple[str | None, int]] = {}
    for line in listed_names(split.list_file):
        name = _listed_name(line, files)
        listed[name] = (files.get(name), listed.get(name, (None, 0))[1] + 1)
    return listed


def _listed_name(line: str, files: Mapping[str, str]) -> str:
    """Return the name of an annotation file that a line of a list means: the whole line, or the end of a path."""
    if line in files:
        return line
    # A name may end in what looks like a suffix, or like the mark -1, 0 or 1 that some lists have behind it.
    forms = list(dict.fromkeys((compose_name(posix(line)), stem_of(line), stem_of(without_mark(line)))))
    ends = [form.split("/", count)[-1] for form in forms for count in range(form.count("/") + 1)]
    return next((form for form in (*forms, *ends) if form in files), forms[-1])


def _list_findings(listed: Mapping[str, tuple[str | None, int]]) -> list[Finding]:
    missing = [Finding(LISTED_WITHOUT_FILE, name) for name, (path, _) in listed.items() if path is None]
    counts = {name: count for name, (_, count) in listed.items() if count > 1}
    return [*missing, *(Finding(REPEATED_IMAGE, name, f"{count} times") for name, count in counts.items())]


def _parse(path: str, name: str, faults: Faults) -> VocFile | None:
    try:
        file = parse_voc(Path(path))
    except ValueError as error:
        faults.add_file(f"{name}.xml", path, error)
        return None
    for fault in file.faults:
        faults.add_entry(f"{name}.xml", fault)
    return file


def _class_names(split: VocSplit, folder: Path) -> list[str]:
    """Return the names in labelmap.txt, as CVAT exports it; none where it is not there."""
    for parent in dict.fromkeys((split.annotations.parent, folder)):  # name:color:parts:actions
        file = parent / "labelmap.txt"
        if file.is_file():
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
            lines = [line for line in lines if line.count(":") >= 3 and line not in _NO_CLASS]
            names = (compose_name(line.rsplit(":", 3)[0]) for line in lines)
            return [name for name in dict.fromkeys(names) if name]
    return []


def _add(rows: ImageRows, images: ImageFiles, name: str, file: VocFile) -> str:
    """Add the image of an annotation file, and its objects; return the name of the image."""
    suffix = PurePosixPath(posix(file.image_name)).suffix if file.image_name else ""
    image = images.find_stem(name, suffix)
    if image is None:
        image = name if is_image_name(name) else name + (suffix if suffix.lower() in SUFFIXES else ".jpg")
    named = stem_of(file.image_name)
    own = (PurePosixPath(name).name, PurePosixPath(stem_of(image)).name, file.image_name)
    if file.image_name and PurePosixPath(named).name not in own:
        rows.find(OTHER_IMAGE_NAME, f"{name}.xml", file.image_name)
    rows.add_image(image, file.size)
    for kind, detail in file.findings:
        rows.find(kind, f"{name}.xml", detail)
    label_of = rows.label_of
    for number, one in enumerate(file.objects, start=1):
        rows.add_object(label_of[one.name], one.corners, one.polygons, crowd=one.difficult)
        if one.difficult:
            rows.find(MARKED_DIFFICULT, f"{name}.xml", f"object {number}: {one.name}")
    return image


def _name_images_without_files(rows: ImageRows, images: ImageFiles, used: set[str]) -> None:
    # The name of an image that was not found is looked up again, by its last part, when images are opened.
    sought = {PurePosixPath(stem_of(name)).name for name in used - {*images.names}}
    for image in images.names:
        if image not in used and PurePosixPath(stem_of(image)).name not in sought:
            rows.find(IMAGE_WITHOUT_ANNOTATION_FILE, image)
