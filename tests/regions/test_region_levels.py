"""The level of a region."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops.poolers import LevelMapper

from boxwright.regions.options import LevelEpsilon
from boxwright.regions.roi_extractor import region_levels

STRIDES = (4, 8, 16, 32)


def squares(*sides: float) -> torch.Tensor:
    return torch.tensor([[3.0, 5.0, 3.0 + side, 5.0 + side] for side in sides], dtype=torch.float64)


@pytest.mark.parametrize("epsilon", ["outside", "inside"])
def test_published_borders(epsilon: LevelEpsilon) -> None:
    sides = (0.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0)
    levels = region_levels(squares(*sides), STRIDES, epsilon=epsilon)
    assert [[2, 3, 4, 5][i] for i in levels.tolist()] == [2, 2, 3, 3, 4, 4, 5, 5]


def test_the_two_positions_of_the_epsilon_differ_just_below_a_border() -> None:
    box = squares(224 * (1 - 8e-7))
    assert region_levels(box, STRIDES, epsilon="outside").tolist() == [1]
    assert region_levels(box, STRIDES, epsilon="inside").tolist() == [2]
    box = squares(112 * (1 - 1e-6))
    assert region_levels(box, STRIDES, epsilon="inside").tolist() == [1]


def test_equals_torchvisions() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * 100
    boxes = torch.cat((corners, corners + torch.rand(500, 2, generator=generator) * 900), 1)
    expected = LevelMapper(2, 5)([boxes])
    levels = region_levels(boxes, STRIDES)
    assert levels.unique().tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(levels, expected, rtol=0, atol=0)


def test_levels_that_are_missing_or_alike() -> None:
    sides = squares(20.0, 60.0, 120.0, 240.0, 480.0)
    assert region_levels(sides, (8, 16, 16)).tolist() == [0, 0, 0, 2, 2]
    assert region_levels(sides, (4, 8, 16, 16)).tolist() == [0, 0, 1, 3, 3]
    assert region_levels(sides, (4, 8, 8, 8, 32)).tolist() == [0, 0, 3, 4, 4]
    assert region_levels(sides, (16, 16, 16)).tolist() == [2] * 5
    assert region_levels(sides, (4, 32)).tolist() == [0, 0, 1, 1, 1]
    assert region_levels(sides, (16,)).tolist() == [0] * 5
