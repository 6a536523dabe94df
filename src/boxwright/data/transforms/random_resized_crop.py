"""The crop that classifiers are trained with: any part of an image, of random area and shape."""

from __future__ import annotations

import math

import numpy as np

from boxwright.data.crop import CropRegion
from boxwright_runtime.input_format import Window

ASPECTS = (3 / 4, 4 / 3)
"""Least and largest width of a part, as a multiple of its height."""

TRIALS = 10


def random_resized_crop(
    height: int, width: int, area_range: tuple[float, float], rng: np.random.Generator
) -> CropRegion:
    """Draw a part of an image, in whole pixels of it.

    Its fraction of the area is drawn evenly, its aspect ratio evenly on a logarithmic scale, up to ten times, until it
    is neither wider nor higher than the image; then its position. Failing that, it is the central part that is as
    large as possible within the range of aspect ratios.

    **Source**: Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, section 6; torchvision's RandomResizedCrop
    0.29, with the same formulas.

    Args:
        height: of the image.
        width: of the image.
        area_range: least and largest fraction of the image's area.
        rng: the only source of chance.
    """
    narrowest, widest = ASPECTS
    for _ in range(TRIALS):
        area = height * width * rng.uniform(*area_range)
        aspect = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return _region(top, left, rows, columns)
    rows = round(width / narrowest) if width / height < narrowest else height
    columns = round(height * widest) if width / height > widest else width
    return _region((height - rows) // 2, (width - columns) // 2, rows, columns)


def check_area_range(name: str, area_range: tuple[float, float]) -> None:
    """Check that an option is a range of fractions of an area.

    Raises:
        ValueError: it is not.
    """
    if len(area_range) != 2 or not 0 < area_range[0] <= area_range[1] <= 1:
        raise ValueError(
            f"{name} is the least and the largest fraction of the area, above 0 and up to 1; got {area_range}"
        )


def _region(top: int, left: int, rows: int, columns: int) -> CropRegion:
    return CropRegion(Window(float(left), float(top), float(left + columns), float(top + rows)), rows, columns)
