"""Crops of the objects of a detection data set, for classification."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from PIL import Image

from boxwright.data.records import DetectionData

_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')
"""Characters that file systems refuse."""


class Cut(NamedTuple):
    """The number of images that were written for each class, and of objects that were too small."""

    counts: dict[str, int]
    too_small: int


def crop_objects(
    data: DetectionData,
    out: Path,
    *,
    margin: float = 0.1,
    min_size: int = 8,
    progress: Callable[[int], None] | None = None,
) -> Cut:
    """Write every object as ``out/CLASS/IMAGE_ANNOTATION.png``, the image's name without dots that would hide it.

    A crop is a square around the object, so that nothing is distorted. Where it reaches out of the image, it is moved
    inside; where the image is too small, it is cut. Crowd regions are left out.

    Args:
        data: images with objects.
        out: a folder, which is made.
        margin: shown around the object on each side, as a fraction of its longer side, from 0 to 10.
        min_size: shorter side that an object has at least, in pixels.
        progress: called with the number of images done.

    Raises:
        ValueError: a number is out of range, two classes would have one folder, or an image cannot be read.
    """
    check_crop(margin, min_size)
    folders = class_folder_names(data)
    counts: Counter[str] = Counter()
    too_small = 0
    for name in folders.values():
        (out / name).mkdir(parents=True, exist_ok=True)
    for done, record in enumerate(data.records, start=1):
        boxes = record.boxes()
        large = (boxes[:, 2:] - boxes[:, :2]).min(1, initial=np.inf) >= min_size
        too_small += int((~large & ~record.crowd).sum())
        indices = np.flatnonzero(large & ~record.crowd)
        image = record.read() if len(indices) else None
        for i in indices.tolist():
            assert image is not None
            left, top, right, bottom = square_around(boxes[i], record.height, record.width, margin)
            name = folders[int(record.labels[i])]
            file = out / name / f"{_file_name(record.path.stem)}_{record.annotation_ids[i]}.png"
            Image.fromarray(image[top:bottom, left:right]).save(file)
            counts[name] += 1
        if progress is not None:
            progress(done)
    return Cut({name: counts[name] for name in folders.values()}, too_small)


def check_crop(margin: float, min_size: int) -> None:
    """Raise ``ValueError`` for numbers that ``crop_objects`` does not take."""
    if not 0 <= margin <= 10 or min_size < 1:
        raise ValueError(f"margin is from 0 to 10 and min_size at least 1 pixel, not {margin} and {min_size}")


def square_around(
    box: Float32[np.ndarray, "xyxy=4"], height: int, width: int, margin: float
) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the square around a box, in whole pixels, inside the image."""
    x1, y1, x2, y2 = box.tolist()
    side = max(1, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))

    def span(low: float, high: float, length: int) -> tuple[int, int]:
        start = min(max(0, round((low + high - side) / 2)), max(0, length - side))
        return start, min(start + side, length)

    (left, right), (top, bottom) = span(x1, x2, width), span(y1, y2, height)
    return left, top, right, bottom


def class_folder_names(data: DetectionData) -> dict[int, str]:
    """Return the name of the folder for the crops of each label.

    Raises:
        ValueError: two classes would have one folder, or one has no name that a folder can have.
    """
    names = {i: _file_name(category.name) for i, category in enumerate(data.categories)}
    taken: dict[str, str] = {}
    for label, name in names.items():
        own = data.categories[label].name
        # Some file systems do not tell upper from lower case.
        if not name or name.lower() in taken:
            other = f" and {taken[name.lower()]!r}" if name else ""
            raise ValueError(f"{data.source}: classes {own!r}{other} have no folder name of their own; rename one")
        taken[name.lower()] = own
    return names


def _file_name(name: str) -> str:
    """Remove characters that some file systems refuse; the name may become empty."""
    return _NOT_IN_NAMES.sub("_", unicodedata.normalize("NFC", name)).strip(". ")
