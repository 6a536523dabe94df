"""Random numbers that belong to one image, whichever batch, process or part of a step it goes through."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """The purpose of random numbers: no two share a stream, and no one may get another number."""

    ANCHORS = 0
    REGIONS = 1
    DENOISING = 2
    MASKS = 3
    AUXILIARY = 4


def image_generator(seed: int, purpose: Purpose, device: torch.device, *, stage: int = 0) -> torch.Generator:
    """Make the generator of the random choices for one image.

    Args:
        seed: of the image, see ``Targets``.
        purpose: of the numbers.
        device: that they are drawn on.
        stage: of several that draw for the same purpose.
    """
    # Torch's generator on CPUs reads 32 bits only, and neighboring seeds must not give like numbers.
    state = np.random.SeedSequence([seed, int(purpose), stage]).generate_state(1)
    return torch.Generator(device).manual_seed(int(state[0]))
