"""The table of annotations that every reader returns, whatever the file format is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from boxwright.data.findings import Finding
from boxwright.structures import Category

ImageSource = Callable[[], UInt8[np.ndarray, "h w 3"]]
"""Returns an image that is in no file, as RGB."""


class ListedImage(NamedTuple):
    """One image of a data set.

    Args:
        id: id of the image, unique in the data set.
        file_name: path of the image inside its folder, with forward slashes; the name of an image that is in no file.
        size: (height, width) that the annotation file states, or None. The image's own size counts.
        source: returns the image where it is in no file; then ``size`` is its own.
    """

    id: int
    file_name: str
    size: tuple[int, int] | None = None
    source: ImageSource | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Annotations:
    """Images, classes, and a row for each annotation of one split, not yet joined with the images.

    Args:
        path: the file or folder that was read, for messages.
        image_folders: folders that ``file_name`` may be relative to, the likeliest first.
        categories: the classes; ids and names are unique.
        images: in the order of the file.
        image_index: of each annotation, into ``images``.
        labels: of each annotation, into ``categories``.
        bbox_xywh: left, top, width and height of each box; None where each object is its whole image.
        area: of each object in square pixels; None for the area of the box.
        crowd: True where the annotation marks a group; None where the format has no such mark.
        annotation_ids: id of each annotation, unique; None for 1, 2, 3 ...
        segmentations: per annotation COCO polygons, an RLE, the name of a PNG file, or None; an empty tuple where
            there is none at all.
        mask_folders: folders beside ``image_folders`` that the names of PNG files may be relative to.
        has_fractions: boxes and polygons are fractions of the image's width and height, and areas of its area, not
            pixels.
        has_category_ids: the ids of ``categories`` are the file's own; else the reader numbered the classes.
        notes: what was left out or repaired, one line each, for the user.
        findings: what was left out, repaired or is worth knowing, each with its place. Those of the severity error are
            entries that must not be left out in training; ``open_data`` refuses them.
    """

    path: Path
    image_folders: tuple[Path, ...]
    categories: tuple[Category, ...]
    images: Sequence[ListedImage]
    image_index: Int64[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    bbox_xywh: Float64[np.ndarray, "n 4"] | None
    area: Float64[np.ndarray, " n"] | None = None
    crowd: Bool[np.ndarray, " n"] | None = None
    annotation_ids: Sequence[int] | Int64[np.ndarray, " n"] | None = None
    segmentations: Sequence[Any] = ()
    mask_folders: tuple[Path, ...] = ()
    has_fractions: bool = False
    has_category_ids: bool = True
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
