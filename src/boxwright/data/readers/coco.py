"""Reading data sets in COCO format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from boxwright.data.coco_file import CocoFile, parse_coco
from boxwright.data.coco_layouts import Source, find_source, find_sources
from boxwright.data.image_check import Progress, first_names, measure_images
from boxwright.data.mask_file import MaskFile
from boxwright.data.records import DetectionData, Record
from boxwright.structures import Category


def splits(data: Path | str) -> list[str]:
    """The splits that a COCO-style folder has: train, val and test first.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not a folder, or it is empty.
    """
    return list(find_sources(Path(data)))


def open_data(
    data: Path | str | None,
    split: str = "train",
    *,
    annotations: Path | str | None = None,
    images: Path | str | None = None,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read one split of a data set in COCO format, wherever its files are.

    Args:
        data: folder in one of the layouts of ``coco_layouts.find_sources``; None with explicit paths.
        split: which part of the folder to read.
        annotations: the annotation file, in place of the layout's.
        images: the image folder, in place of the layout's; beside ``annotations`` where only those are given.
        categories: the classes of a model; see ``read_coco``.
        check_images: see ``read_coco``.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: a folder or the annotation file does not exist.
        ValueError: there is no such split, or ``read_coco`` objects.
    """
    if annotations is not None:
        source = Source(Path(annotations), (Path(annotations).parent,))
    elif data is not None:
        source = find_source(Path(data), split)
    else:
        raise ValueError("give a data folder, or an annotation file and an image folder")
    if images is not None:
        source = source._replace(image_folders=(Path(images),))
    file = parse_coco(source.annotations)
    folder = _likeliest_folder(source.image_folders, file)
    return _join(file, folder, categories, check_images=check_images, progress=progress)


def read_coco(
    annotations: Path | str,
    images: Path | str,
    *,
    categories: Sequence[Category] | None = None,
    check_images: bool = True,
    progress: Progress | None = None,
) -> DetectionData:
    """Read an annotation file in COCO format together with its images.

    Label ``i`` is the ``i``-th category of the file, sorted by id. Every category of the file is a class,
    with or without annotations: some exports begin with a super-category that has none, and dropping it could
    number the classes of two splits differently. Images without annotations are kept. Annotations without
    area inside their image are dropped, with a note. An image's size is its own, after the EXIF rotation.

    Args:
        annotations: the annotation file.
        images: the folder that ``file_name`` is relative to.
        categories: the classes of a model. The file's categories are matched with them by name, and label
            ``i`` is ``categories[i]``. Ids may differ; a category that the model does not know must not have
            annotations.
        check_images: decode every image before returning, so that a truncated one is found now and not in
            epoch 7. Without it, only their headers are read.
        progress: called as ``progress(done, total)`` while the images are checked.

    Raises:
        FileNotFoundError: the annotation file or the image folder does not exist.
        ValueError: the annotation file is broken or contradicts itself, images are missing or cannot be
            read, or annotations are of a class that the model does not know.
    """
    file = parse_coco(Path(annotations))
    return _join(file, Path(images), categories, check_images=check_images, progress=progress)


def max_objects(data: DetectionData) -> int:
    """The number of objects in the fullest image; crowd regions are not objects."""
    return max((int((~record.crowd).sum()) for record in data.records), default=0)


def _likeliest_folder(folders: tuple[Path, ...], file: CocoFile) -> Path:
    """The first of those folders that hold most of the first images."""
    names = [image.file_name for image in islice(file.images, 20)]
    return max(folders, key=lambda folder: (sum((folder / name).is_file() for name in names), folder.is_dir()))


def _join(
    file: CocoFile,
    folder: Path,
    categories: Sequence[Category] | None,
    *,
    check_images: bool,
    progress: Progress | None,
) -> DetectionData:
    if categories is None:
        categories, notes = file.categories, _unused_categories(file)
    else:
        labels, notes = _labels_of_model(file, categories)
        file = dataclasses.replace(file, labels=labels)
    names = [image.file_name for image in file.images]
    sizes = measure_images(folder, names, decode=check_images, progress=progress)
    records, dropped = _records(file, folder, sizes)
    data = DetectionData(records=records, categories=tuple(categories), source=file.path)
    notes += _disagreeing_sizes(file, sizes) + _dropped(dropped)
    return dataclasses.replace(data, notes=tuple(f"{file.path}: {note}" for note in notes))


def _records(file: CocoFile, folder: Path, sizes: list[tuple[int, int]]) -> tuple[tuple[Record, ...], list[str]]:
    """A record per image, and the names of the annotations that were dropped."""
    order = np.argsort(file.image_index, kind="stable")
    bounds = np.searchsorted(file.image_index[order], np.arange(1, len(file.images)))
    records, dropped = [], []
    for index, rows in enumerate(np.split(order, bounds)):
        record = _record(file, folder, index, sizes[index], rows)
        x1, y1, x2, y2 = record.boxes().T
        keep = (x2 > x1) & (y2 > y1)
        if not keep.all():
            name = file.images[index].file_name
            dropped += [f"{name} (annotation {file.annotation_ids[row]})" for row in rows[~keep]]
            record = _record(file, folder, index, sizes[index], rows[keep])
        records.append(record)
    return tuple(records), dropped


def _record(file: CocoFile, folder: Path, index: int, size: tuple[int, int], rows: Int64[np.ndarray, " n"]) -> Record:
    image = file.images[index]
    folders = folder, file.path.parent
    given = [file.segmentations[row] for row in rows] if file.segmentations else []
    segmentations = tuple(MaskFile(one, folders, *size) if isinstance(one, str) else one for one in given)
    return Record(
        image_id=image.id,
        path=folder / image.file_name,
        height=size[0],
        width=size[1],
        labels=file.labels[rows],
        bbox_xywh=file.bbox_xywh[rows],
        area=file.area[rows],
        crowd=file.crowd[rows],
        annotation_ids=tuple(file.annotation_ids[row] for row in rows),
        segmentations=segmentations,
    )


def _labels_of_model(file: CocoFile, categories: Sequence[Category]) -> tuple[Int64[np.ndarray, " n"], list[str]]:
    """The file's labels as indices into a model's categories, matched by name."""
    label_of = {category.name: label for label, category in enumerate(categories)}
    lookup = np.array([label_of.get(category.name, -1) for category in file.categories], dtype=np.int64)
    labels = lookup[file.labels]
    unknown = np.unique(file.labels[labels < 0])
    if unknown.size:
        names = [repr(file.categories[label].name) for label in unknown]
        known = [repr(category.name) for category in categories]
        raise ValueError(
            f"{file.path}: {len(names)} of its categories with annotations are unknown to the model: "
            f"{first_names(names, 5)}; the model knows {len(known)}: {first_names(known, 5)}; "
            "use the data set that it was trained on, or train a model for this one"
        )
    notes = []
    unused = [repr(file.categories[i].name) for i in np.flatnonzero(lookup < 0)]
    if unused:
        notes.append(
            f"{len(unused)} categories without annotations are unknown to the model, and ignored: {first_names(unused)}"
        )
    moved = [
        f"{category.name!r} is {category.id} here and {categories[label].id} there"
        for category, label in zip(file.categories, lookup, strict=True)
        if label >= 0 and category.id != categories[label].id
    ]
    if moved:
        notes.append(f"{len(moved)} category ids differ from the model's, matched by name: {first_names(moved, 1)}")
    return labels, notes


def _unused_categories(file: CocoFile) -> list[str]:
    used = np.isin(np.arange(len(file.categories)), file.labels)
    unused = [repr(file.categories[label].name) for label in np.flatnonzero(~used)]
    if not unused:
        return []
    return [
        f"{len(unused)} of {used.size} categories have no annotations here, and are classes all the same: "
        f"{first_names(unused)}"
    ]


def _disagreeing_sizes(file: CocoFile, sizes: list[tuple[int, int]]) -> list[str]:
    wrong = [
        f"{image.file_name} (file {image.size[1]}x{image.size[0]}, image {size[1]}x{size[0]})"
        for image, size in zip(file.images, sizes, strict=True)
        if image.size is not None and image.size != size
    ]
    if not wrong:
        return []
    return [
        f"{len(wrong)} images have another size than the file says (the image's own counts, after its "
        f"EXIF rotation; look whether the boxes fit): {first_names(wrong)}"
    ]


def _dropped(names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{len(names)} annotations without area inside their image dropped: {first_names(names)}"]
