"""A segmentation that is an image of its own: a PNG with the mask of one object."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, ImageOps

from boxwright.ops.masks import encode_mask
from boxwright_runtime.image_file import describe_error, load_file
from boxwright_runtime.masks import to_json
from boxwright_runtime.png_chunks import SIGNATURE, mend_png
from boxwright_runtime.printable_names import printable
from boxwright_runtime.quiet_decoding import quiet_decoding

SUFFIX = ".png"
"""Suffix of such files: formats with other compression would not be exact."""


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A mask in a file, which is read on demand, and once.

    Args:
        name: of the file, inside one of the folders.
        folders: searched for it, in this order.
        height: of its image, in pixels.
        width: of its image, in pixels.
    """

    name: str
    folders: tuple[Path, ...]
    height: int
    width: int

    @cached_property
    def run_lengths(self) -> dict[str, Any]:
        """Run lengths of the mask in COCO's form: its pixels are those that are not zero and not transparent.

        Raises:
            FileNotFoundError: it is in none of the folders.
            ValueError: it cannot be read, or is not as large as the image.
        """
        path = next((folder / self.name for folder in self.folders if os.path.isfile(folder / self.name)), None)
        if path is None:
            folders = " or ".join(str(folder) for folder in dict.fromkeys(self.folders))
            raise FileNotFoundError(f"there is no mask {self.name!r} in {folders}")
        mask = _read(path)
        if mask.shape != (self.height, self.width):
            raise ValueError(
                f"the mask {path} has {mask.shape[1]} x {mask.shape[0]} pixels, but its image has "
                f"{self.width} x {self.height}"
            )
        return to_json(encode_mask(torch.from_numpy(mask)))


def run_lengths_of(segmentation: Any) -> Any:
    """Return a segmentation without files: polygons and run lengths as they are.

    Raises:
        FileNotFoundError: see ``MaskFile.run_lengths``.
        ValueError: see ``MaskFile.run_lengths``.
    """
    return segmentation.run_lengths if isinstance(segmentation, MaskFile) else segmentation


def _read(path: Path) -> Bool[np.ndarray, "h w"]:
    try:
        data = load_file(path)
        if data.startswith(SIGNATURE):
            data, _ = mend_png(data)
        with quiet_decoding(), Image.open(io.BytesIO(data)) as image:
            upright = ImageOps.exif_transpose(image)
            bands, pixels = upright.getbands(), np.asarray(upright)
            opaque = _opaque(upright)
    except Exception as error:  # on damaged files, Pillow's decoders raise errors of any kind, SyntaxError included
        raise ValueError(f"the mask {printable(path)} cannot be read: {describe_error(error)}") from error
    # Bytes as they are: of a palette the number of the color counts, and 16 bits are not scaled to 8.
    mask = pixels.reshape(*pixels.shape[:2], -1) != 0
    if bands[-1] == "A":
        mask = mask[..., :-1] & mask[..., -1:]
    return np.asarray(mask.any(-1) & opaque)


def _opaque(image: Image.Image) -> Bool[np.ndarray, "h w"] | Literal[True]:
    """Find the pixels of no color that the image declares to be transparent; return True where it declares none."""
    if "transparency" not in image.info:
        return True
    if image.mode.startswith("I"):  # of 16 bits, the conversion would compare 8
        return np.asarray(np.asarray(image) != image.info["transparency"])
    return np.asarray(np.asarray(image.convert("RGBA"))[..., 3] != 0)
