"""Random state for code that draws from the process's own generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def fork_random_state(rng: np.random.Generator) -> Iterator[int]:
    """Seed the generators of torch, NumPy and Python from ``rng``, and restore them at the end.

    Args:
        rng: the only source of chance.

    Yields:
        The seed, for generators of other libraries.
    """
    seed = int(rng.integers(2**63))
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            # torch.manual_seed would seed the GPUs too, and nothing would restore those.
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield seed
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002
