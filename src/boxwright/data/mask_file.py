"""A segmentation that is an image of its own: a PNG with the mask of one object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageOps

from boxwright.ops.masks import encode_mask, to_json

SUFFIX = ".png"
"""How the names of such files end: what other formats compress would not be exact."""


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask in a file, which is read when it is asked for, and once.

    Args:
        name: of the file, inside one of the folders.
        folders: where it is looked for, the first one first.
        height: of the image that it is a mask of, in pixels.
        width: likewise.
    """

    name: str
    folders: tuple[Path, ...]
    height: int
    width: int

    @cached_property
    def run_lengths(self) -> dict[str, Any]:
        """The mask as COCO's files have it: its pixels are those that are not zero and not transparent.

        Raises:
            FileNotFoundError: it is in none of the folders.
            ValueError: it cannot be read, or is not as large as the image.
        """
        path = next((folder / self.name for folder in self.folders if (folder / self.name).is_file()), None)
        if path is None:
            places = " or ".join(str(folder) for folder in dict.fromkeys(self.folders))
            raise FileNotFoundError(f"there is no mask {self.name!r} in {places}")
        mask = _read(path)
        if mask.shape != (self.height, self.width):
            raise ValueError(
                f"the mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, but its image has "
                f"{self.width} x {self.height}"
            )
        return to_json(encode_mask(torch.from_numpy(mask)))


def run_lengths_of(segmentation: Any) -> Any:
    """A segmentation without files: polygons and run lengths as they are.

    Raises:
        FileNotFoundError: see ``MaskFile.run_lengths``.
        ValueError: likewise.
    """
    return segmentation.run_lengths if isinstance(segmentation, MaskFile) else segmentation


def _read(path: Path) -> Bool[np.ndarray, "h w"]:
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            bands, pixels = upright.getbands(), np.asarray(upright)
            opaque = _opaque(upright)
    except Exception as error:  # on damaged files, Pillow's decoders raise what they like, SyntaxError included
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"the mask {path} cannot be read: {reason}") from error
    # Bytes as they are: of a palette the number of the color counts, and 16 bits are not scaled to 8.
    mask = pixels.reshape(*pixels.shape[:2], -1) != 0
    if bands[-1] == "A":
        mask = mask[..., :-1] & mask[..., -1:]
    return np.asarray(mask.any(-1) & opaque)


def _opaque(image: Image.Image) -> Bool[np.ndarray, "h w"] | Literal[True]:
    """Where an image is of none of the colors that it declares to be transparent; True where it declares none."""
    if "transparency" not in image.info:
        return True
    if image.mode.startswith("I"):  # of 16 bits, the conversion would compare 8
        return np.asarray(np.asarray(image) != image.info["transparency"])
    return np.asarray(np.asarray(image.convert("RGBA"))[..., 3] != 0)
