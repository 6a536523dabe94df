"""Folders of classes: SPLIT/CLASS/*.jpg, for repaired copies; each image is in the folder that it was in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from boxwright.data.findings import Finding
from boxwright.data.records import DetectionData, Record
from boxwright.data.writers._check import check_written, count_objects, filled_splits
from boxwright.data.writers._target import class_names, put_image, whole_folder


def write(splits: Mapping[str, DetectionData], folder: Path, *, link: bool) -> list[Finding]:
    """Write splits of a data set for classification as folders of classes.

    Args:
        splits: by name.
        folder: does not exist, or is empty.
        link: images are hard links where possible, else copies.

    Returns:
        class names that are written in another way, and splits without images.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: the folder is not empty or cannot be written, or cannot be read back.
    """
    findings: list[Finding] = []
    splits = filled_splits(splits, findings)
    names = class_names(splits, findings)
    with whole_folder(folder) as target:
        for split, data in splits.items():
            used = {int(record.labels[0]) for record in data.records}
            for label, category in enumerate(data.categories):
                if label not in used:
                    (target / split / names[category.name]).mkdir(parents=True, exist_ok=True)
            for record in data.records:
                class_name = names[data.categories[int(record.labels[0])].name]
                put_image(record, target / split / _path_inside(record, data.source, class_name), link=link)
        check_written(target, "class_folders", splits, count_objects(splits))
    return findings


def _path_inside(record: Record, folder: Path, class_name: str) -> PurePosixPath:
    """Return the path of an image in the folder of its split; that of one from elsewhere is made of its id."""
    if record.source is None and record.path.is_relative_to(folder):
        return PurePosixPath(record.path.relative_to(folder).as_posix())
    suffix = record.path.suffix if record.source is None else ".png"
    return PurePosixPath(class_name) / f"{record.image_id}{suffix}"
