"""Run lengths in NumPy against those of the library that encodes masks in Boxwright."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from boxwright.ops.masks import decode_mask, encode_mask
from boxwright_runtime.masks import decode_rle, encode_part, encode_rle, to_json


@pytest.mark.parametrize("seed", range(10))
def test_bytes_are_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        mask = rng.random(rng.integers(1, 50, 2)) < rng.choice([0.0, 0.02, 0.5, 0.98, 1.0])
        rle = encode_rle(mask)
        assert rle == encode_mask(torch.from_numpy(mask))
        assert np.array_equal(decode_rle(rle), mask)
        assert np.array_equal(decode_rle(to_json(rle)), mask)


@pytest.mark.parametrize("seed", range(10))
def test_a_part_of_an_image(seed: int) -> None:
    """Parts as high or as wide as the image too, whose columns go on in the next."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        height, width = rng.integers(1, 30, 2)
        top, left = rng.integers(0, height + 1), rng.integers(0, width + 1)
        if rng.random() < 0.5:
            top = 0
        image = np.zeros((height, width), dtype=bool)
        part = image[top:, left:]
        part[:] = rng.random(part.shape) < rng.choice([0.1, 0.5, 1.0])
        assert encode_part(part, (top, left), (height, width)) == encode_mask(torch.from_numpy(image))


def test_large_images() -> None:
    """Lengths of several letters, and differences below zero."""
    mask = np.zeros((5000, 4000), dtype=bool)
    mask[40:4800, 300:2500] = True
    mask[4900:, 3999] = True
    assert encode_rle(mask) == encode_mask(torch.from_numpy(mask))


def test_counts_in_numbers() -> None:
    rle = {"size": [3, 2], "counts": [1, 3, 2]}
    assert np.array_equal(decode_rle(rle), decode_mask(rle).numpy())
