"""Discrete deformable sampling against a loop over cells, in every backend that runs here."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from deformable_cases import SHAPES, SPREADS, Points, Shapes, cotangent, example, spread_points
from torch import Tensor

from boxwright.ops.deformable import deformable_sampling

Backend = Literal["grid_sample", "embedding_bag"]

backends = pytest.mark.parametrize("backend", ["grid_sample", "embedding_bag"])


def by_cells(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor, points: Points) -> Tensor:
    """Sum the cell of each sample, one after the other."""
    b, _, m, d = value.shape
    out = value.new_zeros(b, locations.shape[1], m, d)
    for image, query, head in torch.cartesian_prod(*map(torch.arange, locations.shape[:3])).tolist():
        first, point = 0, 0
        for (h, w), count in zip(shapes, points, strict=True):
            for p in range(point, point + count):
                x, y = locations[image, query, head, p].tolist()
                column, line = min(max(int(x * w + 0.5), 0), w - 1), min(max(int(y * h + 0.5), 0), h - 1)
                token = first + line * w + column
                out[image, query, head] += weights[image, query, head, p] * value[image, token, head]
            first, point = first + h * w, point + count
    return out.flatten(2)


@backends
@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("spread", SPREADS.values(), ids=list(SPREADS))
def test_takes_the_value_of_one_cell(backend: Backend, shapes: Shapes, spread: float) -> None:
    points = spread_points(2, shapes)
    value, locations, weights = (x.requires_grad_() for x in example(shapes, spread=spread))
    expected = by_cells(value, shapes, locations, weights, points)
    ours = deformable_sampling(value, shapes, locations, weights, points, backend=backend, method="discrete")
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert ours.abs().max() > 0.01
    inputs, change = (value, weights), cotangent(value, locations)
    assert torch.autograd.grad(ours, locations, change, retain_graph=True, allow_unused=True)[0] is None
    gradients = torch.autograd.grad(ours, inputs, change)
    for ours_of, theirs_of in zip(gradients, torch.autograd.grad(expected, inputs, change), strict=True):
        torch.testing.assert_close(ours_of, theirs_of, rtol=0, atol=1e-5)


@backends
def test_numbers_worked_out_by_hand(backend: Backend) -> None:
    # 2 rows of 4 columns: 0 1 2 3 / 10 11 12 13. A cell is half a cell to the right of where a location lies.
    value = torch.tensor([0.0, 1, 2, 3, 10, 11, 12, 13]).view(1, 8, 1, 1)
    x, y = torch.tensor([0.4, 1.6, 3.9, -2.0]) / 4, torch.tensor([0.4, 0.6, 0.2, 9.0]) / 2
    locations, weights = torch.stack((x, y), -1).view(1, 4, 1, 1, 2), torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)
    ours = deformable_sampling(value, [(2, 4)], locations, weights, (1,), backend=backend, method="discrete")
    # The third, on a wide map, is in a column that clamping by the height would never reach.
    assert ours.flatten().tolist() == [0.0, 2 * 12.0, 3 * 3.0, 4 * 10.0]


@pytest.mark.usefixtures("unchecked")
def test_unknown_methods_are_named() -> None:
    value, locations, weights = example([(2, 2)])
    with pytest.raises(ValueError, match=r"method is one of \['default', 'discrete'\], not 'nearest'"):
        deformable_sampling(value, [(2, 2)], locations, weights, (2,), method="nearest")  # type: ignore[arg-type]
