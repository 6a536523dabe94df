"""Nouns that detectors and exported files share: classes, sizes of images, masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Task = Literal["detection", "classification"]
"""The task of a head: objects and their boxes, or the class of a whole image, its one object."""

RLE = dict[str, Any]
"""A mask as COCO's compressed run lengths: ``{"size": [height, width], "counts": bytes}``."""

MaskRegion = Literal["box", "image"]
"""The region that the cells of a predicted mask consist of: the box of its object, or the whole network input."""


@dataclass(frozen=True)
class Category:
    """One class of a data set, as its annotation file names it.

    Args:
        id: the file's own id; ids may be sparse and may start anywhere.
        name: the file's own name.
    """

    id: int
    name: str


class ImageSize(NamedTuple):
    """The size of one image before and after it was resized, in pixels.

    ``height`` and ``width`` are those of the original image (after its EXIF rotation);
    ``input_height`` and ``input_width`` those of the image inside its padding, in the network input.
    """

    height: int
    width: int
    input_height: int
    input_width: int
