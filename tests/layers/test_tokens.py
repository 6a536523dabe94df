"""Maps as sequences of tokens, and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from boxwright.layers.tokens import (
    compute_cell_centers,
    flatten_levels,
    flatten_maps,
    flatten_mask,
    split_maps,
    to_map,
    to_tokens,
)

SHAPES = [(4, 6), (2, 3)]


def maps(batch: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 16, h, w, generator=generator) for h, w in SHAPES]


def padding_mask() -> Tensor:
    """Mask the padding of images of 32 x 48 and 24 x 16 pixels in one batch."""
    mask = torch.zeros(2, 32, 48, dtype=torch.bool)
    mask[1, 24:], mask[1, :, 16:] = True, True
    return mask


def test_tokens_run_row_by_row_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 5, dtype=torch.float32).view(2, 3, 4, 5)
    tokens = to_tokens(x)
    assert tokens.shape == (2, 20, 3)
    assert torch.equal(tokens[1, 7], x[1, :, 1, 2])
    assert torch.equal(to_map(tokens, 4, 5), x)


def test_the_gradient_of_a_single_image_passes_batch_norm() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3).double()
    x = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    cotangent = torch.randn(1, 20, 3, dtype=torch.float64)
    (through_tokens,) = torch.autograd.grad((to_tokens(norm(x)) * cotangent).sum(), x)
    (as_map,) = torch.autograd.grad((norm(x) * to_map(cotangent, 4, 5).contiguous()).sum(), x)
    torch.testing.assert_close(through_tokens, as_map, rtol=1e-12, atol=1e-12)


def test_levels_are_flattened_and_split() -> None:
    levels = maps()
    tokens, shapes = flatten_maps(levels)
    assert shapes == SHAPES
    for one, other in zip(split_maps(tokens, shapes), levels, strict=True):
        assert one.equal(other)
    assert flatten_mask(None, shapes) is None
    mask = flatten_mask(padding_mask(), shapes)
    assert mask is not None
    padding = flatten_levels(levels, padding_mask()).padding
    assert padding is not None
    assert mask.equal(padding)


def test_tokens_run_row_by_row_from_the_finest_level() -> None:
    levels = maps()
    tokens = flatten_levels(levels, None)
    assert tokens.shapes == SHAPES
    assert tokens.padding is None
    torch.testing.assert_close(tokens.memory[1, 2 * 6 + 5], levels[0][1, :, 2, 5], rtol=0, atol=0)
    torch.testing.assert_close(tokens.memory[0, 24 + 1 * 3 + 2], levels[1][0, :, 1, 2], rtol=0, atol=0)
    assert tokens.valid_cells.tolist() == [[[6, 4], [3, 2]]]
    assert tokens.valid_ratios.tolist() == [[[1, 1], [1, 1]]]


def test_the_image_is_counted_in_cells_of_each_level() -> None:
    tokens = flatten_levels(maps(), padding_mask())
    assert tokens.valid_cells.tolist() == [[[6, 4], [3, 2]], [[2, 3], [1, 2]]]
    torch.testing.assert_close(tokens.valid_ratios[1], torch.tensor([[2 / 6, 3 / 4], [1 / 3, 2 / 2]]))
    assert tokens.padding is not None
    assert not tokens.padding[0].any()
    expected = [row > 2 or column > 1 for row in range(4) for column in range(6)]
    expected += [column > 0 for _ in range(2) for column in range(3)]
    assert tokens.padding[1].tolist() == expected


def test_centers_are_relative_to_the_image() -> None:
    centers = compute_cell_centers(flatten_levels(maps(), padding_mask()))
    for image, valid_cells in enumerate(([(6, 4), (3, 2)], [(2, 3), (1, 2)])):
        expected = [
            ((column + 0.5) / columns, (row + 0.5) / rows)
            for (h, w), (columns, rows) in zip(SHAPES, valid_cells, strict=True)
            for row in range(h)
            for column in range(w)
        ]
        torch.testing.assert_close(centers[image], torch.tensor(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(compute_cell_centers(flatten_levels(maps(), None))[0], centers[0], rtol=0, atol=0)


def test_dividing_by_the_ratio_gives_the_same_centers() -> None:
    for mask in (None, padding_mask()):
        tokens = flatten_levels(maps(), mask)
        by_ratio = compute_cell_centers(tokens, by_ratio=True)
        torch.testing.assert_close(by_ratio, compute_cell_centers(tokens), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cell_at_one_percent_of_the_image_is_there_exactly(dtype: torch.dtype) -> None:
    # 0.5 / 50, in a padded input of 70 cells: an anchor at 0.01 is not valid, one above it is not.
    mask = torch.zeros(1, 8, 560, dtype=torch.bool)
    mask[..., 400:] = True
    centers = compute_cell_centers(flatten_levels([torch.zeros(1, 2, 1, 70, dtype=dtype)], mask))
    assert centers.dtype == dtype
    assert not centers[0, 0, 0] > 0.01
    assert not centers[0, 49, 0] < 0.99
