"""Matching of points with objects."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from boxwright.dense.point_matching import match_points, scale_ranges


def test_published_scale_ranges() -> None:
    assert scale_ranges([8, 16, 32, 64, 128]) == [(0, 64), (64, 128), (128, 256), (256, 512), (512, math.inf)]


@pytest.mark.parametrize("strides", [[8], [8, 16, 16], [4, 16], [14, 28, 56], [16, 16], [8, 64, 64, 512]], ids=str)
def test_every_distance_has_a_level(strides: list[int]) -> None:
    ranges = scale_ranges(strides)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == math.inf
    for (_, end), (start, _) in pairwise(ranges):
        assert start <= end
    assert all(low < high for low, high in ranges)


def grid(cells: int = 8, stride: int = 8) -> Tensor:
    """Points in the middle of the cells of a square map."""
    at = (torch.arange(cells) + 0.5) * stride
    return torch.stack((at.expand(cells, cells), at[:, None].expand(cells, cells)), -1).view(-1, 2)


def test_points_inside_of_the_box() -> None:
    # Points lie at 4, 12, 20, ...; one on the side of a box is not inside.
    actual = match_points(grid(), torch.tensor([[4.0, 10.0, 30.0, 22.0]])).view(8, 8)
    expected = torch.full((8, 8), -1)
    expected[1:3, 1:4] = 0
    assert torch.equal(actual, expected)


def test_points_near_the_center() -> None:
    # The center is (32, 32); points at a distance of exactly the radius are too far.
    actual = match_points(grid(), torch.tensor([[0.0, 0.0, 64.0, 64.0]]), radius=12.0).view(8, 8)
    expected = torch.full((8, 8), -1)
    expected[3:5, 3:5] = 0
    assert torch.equal(actual, expected)
    assert (match_points(grid(), torch.tensor([[0.0, 0.0, 64.0, 64.0]]), radius=12.1).view(8, 8) == 0).sum() == 16


def test_a_small_box_keeps_the_points_that_lie_inside() -> None:
    actual = match_points(grid(), torch.tensor([[11.0, 11.0, 13.0, 13.0]]), radius=12.0).view(8, 8)
    assert actual[1, 1] == 0
    assert (actual == 0).sum() == 1


def test_distances_at_a_bound_belong_to_both_levels() -> None:
    # From (4, 4), the farthest side is at 40.
    box, point = torch.tensor([[0.0, 0.0, 44.0, 20.0]]), torch.tensor([[4.0, 4.0]])
    for scale_range, index in (((0.0, 40.0), 0), ((40.0, 80.0), 0), ((0.0, 39.9), -1), ((40.1, math.inf), -1)):
        assert match_points(point, box, scale_range=scale_range).tolist() == [index]


def test_the_smallest_object_wins_and_the_first_of_equals() -> None:
    boxes = torch.tensor(
        [[0.0, 0.0, 40.0, 40.0], [8.0, 8.0, 24.0, 24.0], [0.0, 0.0, 30.0, 30.0], [8.0, 8.0, 24.0, 24.0]]
    )
    actual = match_points(torch.tensor([[12.0, 12.0], [28.0, 28.0], [36.0, 36.0], [50.0, 50.0]]), boxes)
    assert actual.tolist() == [1, 2, 0, -1]


def test_areas_are_compared_as_they_are() -> None:
    # As 1e8 - area in float32, these would be equal, and the first would win.
    boxes = torch.tensor([[0.0, 0.0, 40.0, 40.0], [0.0, 0.0, 40.0, 39.95]])
    assert match_points(torch.tensor([[12.0, 12.0]]), boxes).tolist() == [1]
    large = torch.tensor([[0.0, 0.0, 20_000.0, 20_000.0]])
    assert match_points(torch.tensor([[12.0, 12.0]]), large).tolist() == [0]


def test_without_objects_all_is_background() -> None:
    actual = match_points(grid(), torch.zeros(0, 4))
    assert actual.dtype == torch.int64
    assert actual.tolist() == [-1] * 64


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([6.0, 12.0, math.inf]))
def test_as_written_out_point_by_point(seed: int, count: int, radius: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Whole pixels, so that points lie on sides, distances at bounds, and areas are equal.
    corner = torch.randint(0, 40, (count, 2), generator=generator).float()
    boxes = torch.cat((corner, corner + torch.randint(1, 24, (count, 2), generator=generator)), 1)
    points = grid()
    actual = match_points(points, boxes, scale_range=(8.0, 20.0), radius=radius)
    for (x, y), index in zip(points.tolist(), actual.tolist(), strict=True):
        best, smallest = -1, math.inf
        for i, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            central = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2)) < radius
            size = (x2 - x1) * (y2 - y1)
            if min(sides) > 0 and 8 <= max(sides) <= 20 and central and size < smallest:
                best, smallest = i, size
        assert index == best
