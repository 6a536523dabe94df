"""Random state of a process: seeded from a generator inside, untouched outside."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from boxwright.data.transforms.seeding import fork_random_state


def draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()  # noqa: NPY002


def test_inside_the_generator_decides() -> None:
    draws = []
    for seed in (0, 0, 1):
        draw()
        with fork_random_state(np.random.default_rng(seed)):
            draws.append(draw())
    assert draws[0] == draws[1]
    assert all(one != other for one, other in zip(draws[0], draws[2], strict=True))


def test_outside_nothing_changes() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = draw()
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    with pytest.raises(RuntimeError, match="broken"):
        fail_inside()
    assert draw() == expected


def fail_inside() -> None:
    with fork_random_state(np.random.default_rng(0)):
        draw()
        raise RuntimeError("broken")
