"""Position encodings."""

from __future__ import annotations

import math

import pytest
import torch

from boxwright.layers.positions import (
    LearnedGrid,
    LevelPositions,
    encode_masked_sine,
    encode_sine_grid,
    encode_unmasked_sine,
)


@pytest.mark.parametrize(("height", "width"), [(20, 20), (25, 15), (1, 3)])
def test_every_token_is_its_row_and_its_column(height: int, width: int) -> None:
    dim = 16
    grid = encode_sine_grid(height, width, dim).view(height, width, dim)
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
    assert encode_sine_grid(2, 1, 8, temperature=400.0)[1, 1].item() == pytest.approx(math.sin(1 / 20), abs=1e-7)


def test_width_is_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        encode_sine_grid(2, 2, 6)
    with pytest.raises(ValueError, match="multiple of 4, not 6"):
        LevelPositions("sine", 6)


def make_mask(*sizes: tuple[int, int], shape: tuple[int, int]) -> torch.Tensor:
    mask = torch.ones(len(sizes), *shape, dtype=torch.bool)
    for i, (h, w) in enumerate(sizes):
        mask[i, :h, :w] = False
    return mask


@pytest.mark.parametrize("shift", [0.0, 0.5], ids=["DETR", "Deformable DETR"])
def test_every_cell_is_its_fraction_of_the_image(shift: float) -> None:
    dim, sizes = 8, [(3, 5), (4, 2)]
    grids = encode_masked_sine(make_mask(*sizes, shape=(4, 5)), dim, shift=shift).view(2, 4, 5, dim)
    assert grids.dtype == torch.float32
    for grid, (height, width) in zip(grids, sizes, strict=True):
        for row in range(height):
            for column in range(width):
                y = 2 * math.pi * (row + 1 - shift) / height
                x = 2 * math.pi * (column + 1 - shift) / width
                # temperature ** (-i / 2) for i = 0, 1
                expected = [f(at * w) for at in (y, x) for w in (1.0, 0.01) for f in (math.sin, math.cos)]
                torch.testing.assert_close(grid[row, column], torch.tensor(expected), rtol=0, atol=1e-5)


def test_an_image_is_encoded_alike_in_any_padded_input() -> None:
    alone = encode_unmasked_sine(3, 5, 16).view(3, 5, 16)
    torch.testing.assert_close(
        encode_masked_sine(make_mask((3, 5), shape=(3, 5)), 16)[0].view(3, 5, 16), alone, rtol=0, atol=0
    )
    padded = encode_masked_sine(make_mask((3, 5), (7, 6), shape=(7, 6)), 16).view(2, 7, 6, 16)
    torch.testing.assert_close(padded[0, :3, :5], alone, rtol=0, atol=0)
    assert (padded[1, :3, :5] - alone).abs().max() > 0.1


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_encoding_without_a_mask_is_that_of_a_mask_without_padding(shift: float) -> None:
    masked = encode_masked_sine(torch.zeros(1, 4, 3, dtype=torch.bool), 8, shift=shift, temperature=100.0)
    torch.testing.assert_close(encode_unmasked_sine(4, 3, 8, shift=shift, temperature=100.0), masked[0], rtol=0, atol=0)


def test_learned_cells_are_their_column_and_their_row() -> None:
    torch.manual_seed(0)
    grid = LearnedGrid(6)
    encoded = grid(3, 4).view(3, 4, 6)
    for row in range(3):
        for column in range(4):
            expected = torch.cat((grid.columns.weight[column], grid.rows.weight[row]))
            torch.testing.assert_close(encoded[row, column], expected, rtol=0, atol=0)


def test_learned_cells_start_uniform() -> None:
    torch.manual_seed(0)
    for table in LearnedGrid(256).parameters():
        assert table.shape == (50, 128)
        assert 0 <= table.min() < 0.01
        assert 0.99 < table.max() <= 1
        assert table.mean().item() == pytest.approx(0.5, abs=0.02)


def test_learned_cells_have_an_end() -> None:
    assert LearnedGrid(4)(50, 50).shape == (2500, 4)
    with pytest.raises(ValueError, match=r'reach 50 cells along each side, and the map has 51 x 2: .*positions="sine"'):
        LearnedGrid(4)(51, 2)
    with pytest.raises(ValueError, match="even, not 5"):
        LearnedGrid(5)


def test_levels_follow_each_other() -> None:
    shapes = [(4, 6), (2, 3)]
    mask = make_mask((32, 24), (20, 48), shape=(32, 48))
    sine = LevelPositions("sine", 8)
    expected = torch.cat((encode_unmasked_sine(4, 6, 8), encode_unmasked_sine(2, 3, 8)))
    torch.testing.assert_close(sine(shapes), expected, rtol=0, atol=0)
    of_levels = [
        encode_masked_sine(make_mask(*sizes, shape=at), 8)
        for at, sizes in ((shapes[0], [(4, 3), (3, 6)]), (shapes[1], [(2, 2), (2, 3)]))
    ]
    torch.testing.assert_close(sine(shapes, mask), torch.cat(of_levels, 1), rtol=0, atol=0)

    learned = LevelPositions("learned", 8)
    assert learned.learned is not None
    expected = torch.cat((learned.learned(4, 6), learned.learned(2, 3)))
    torch.testing.assert_close(learned(shapes, mask), expected, rtol=0, atol=0)
    assert LevelPositions("none", 8)(shapes, mask) is None
