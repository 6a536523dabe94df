"""RandAugment: strong changes of color and shape, for classification."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from boxwright.data.transforms.seeding import fork_random_state

STRENGTHS = 31
"""Number of magnitudes; the last is the strongest."""


def rand_augment_image(
    image: UInt8[Tensor, "3 h w"], num_operations: int, magnitude: int, rng: np.random.Generator
) -> UInt8[Tensor, "3 h w"]:
    """Apply random operations, one after the other, each of the same magnitude; black where they show the outside.

    Fourteen operations: none, shearing and shifting along either axis, turning, brightness, saturation, contrast,
    sharpness, fewer bits, inverting the bright, stretching and equalizing the histogram. Boxes and masks do not follow.

    **Source**: Cubuk et al., "RandAugment", NeurIPS 2020; torchvision's RandAugment 0.29 itself, bilinear.

    Args:
        image: RGB.
        num_operations: that are drawn, with replacement.
        magnitude: 0 to 30.
        rng: the only source of chance; the process's own random state is left alone.
    """
    # Where it is needed: importing it takes a second.
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    operations = RandAugment(num_operations, magnitude, STRENGTHS, interpolation=InterpolationMode.BILINEAR)
    with fork_random_state(rng):
        changed: UInt8[Tensor, "3 h w"] = operations(image)
    return changed


def check_operations(name: str, operations: tuple[int, int]) -> None:
    """Check that an option is a number of operations and a magnitude.

    Raises:
        ValueError: it is not.
    """
    if len(operations) != 2 or operations[0] < 0 or not 0 <= operations[1] < STRENGTHS:
        raise ValueError(
            f"{name} is a number of operations, at least 0, and their magnitude, 0 to {STRENGTHS - 1}; got {operations}"
        )
