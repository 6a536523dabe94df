"""Position encodings."""

from __future__ import annotations

import math

import pytest
import torch

from boxwright.layers.positions import sine_grid


@pytest.mark.parametrize(("height", "width"), [(20, 20), (25, 15), (1, 3)])
def test_every_token_is_its_row_and_its_column(height: int, width: int) -> None:
    dim = 16
    grid = sine_grid(height, width, dim).view(height, width, dim)
    omega = [10000 ** (-i / (dim // 4)) for i in range(dim // 4)]
    for row in range(height):
        for column in range(width):
            expected = [
                *(math.sin(row * w) for w in omega),
                *(math.cos(row * w) for w in omega),
                *(math.sin(column * w) for w in omega),
                *(math.cos(column * w) for w in omega),
            ]
            torch.testing.assert_close(grid[row, column], torch.tensor(expected), rtol=0, atol=5e-6)


def test_temperature_stretches_the_waves() -> None:
    # The slowest wave of dim = 8 has the frequency temperature ** -0.5.
    assert sine_grid(2, 1, 8, temperature=400.0)[1, 1].item() == pytest.approx(math.sin(1 / 20), abs=1e-7)


def test_width_is_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        sine_grid(2, 2, 6)
