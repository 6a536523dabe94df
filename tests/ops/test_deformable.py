"""Deformable sampling, against a plain loop over ``grid_sample``."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxwright.ops.deformable import deformable_sampling

Shapes = list[tuple[int, int]]


def reference(value: Tensor, shapes: Shapes, locations: Tensor, weights: Tensor) -> Tensor:
    """Head by head and level by level, as the paper writes it."""
    b, _, m, d = value.shape
    q = locations.shape[1]
    out = value.new_zeros(b, q, m, d)
    for head in range(m):
        first = 0
        for level, (h, w) in enumerate(shapes):
            table = value[:, first : first + h * w, head].transpose(1, 2).reshape(b, d, h, w)
            grid = 2 * locations[:, :, head, level] - 1  # b q p 2
            sampled = F.grid_sample(table, grid, align_corners=False, padding_mode="zeros")  # b d q p
            out[:, :, head] += (sampled * weights[:, None, :, head, level]).sum(-1).transpose(1, 2)
            first += h * w
    return out.flatten(2)


def example(
    shapes: Shapes,
    *,
    b: int = 2,
    q: int = 7,
    m: int = 3,
    d: int = 4,
    p: int = 2,
    spread: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, locations (within ``spread`` of the middle, where 0.5 is the border) and weights."""
    generator = torch.Generator().manual_seed(0)
    tokens = sum(h * w for h, w in shapes)
    value = torch.randn(b, tokens, m, d, generator=generator, dtype=dtype)
    locations = 0.5 + spread * (2 * torch.rand(b, q, m, len(shapes), p, 2, generator=generator, dtype=dtype) - 1)
    weights = torch.rand(b, q, m, len(shapes), p, generator=generator, dtype=dtype)
    return value, locations, weights


SHAPES: list[Shapes] = [
    [(8, 8), (4, 4), (2, 2)],
    [(5, 9), (3, 4)],
    [(9, 5)],
    [(1, 1)],
    [(1, 7), (7, 1), (1, 1), (2, 3)],
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("spread", [0.3, 0.5, 1.5], ids=["inside", "to the borders", "far outside"])
def test_equals_the_grid_sample_form(shapes: Shapes, spread: float) -> None:
    value, locations, weights = example(shapes, spread=spread)
    expected = reference(value, shapes, locations, weights)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(deformable_sampling(value, shapes, locations, weights), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_exactly_on_centres_corners_and_borders(shapes: Shapes) -> None:
    value, locations, weights = example(shapes, q=8, m=1, p=1)
    # In units of the whole map: corners, edges, the middle, and one map beyond each side.
    places = torch.tensor(
        [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.0], [1.0, 0.5], [-1.0, 0.5], [0.5, 2.0]]
    )
    locations = places.view(1, 8, 1, 1, 1, 2).expand_as(locations).contiguous()
    ours = deformable_sampling(value, shapes, locations, weights)
    torch.testing.assert_close(ours, reference(value, shapes, locations, weights), rtol=0, atol=1e-5)
    assert ours[:, 6:].abs().max() == 0
    # A quarter of the corner's cell is all there is at the very corner.
    if len(shapes) == 1:
        torch.testing.assert_close(ours[:, 0], 0.25 * weights[:, 0, 0, 0] * value[:, 0, 0], rtol=0, atol=1e-6)


def test_numbers_worked_out_by_hand() -> None:
    # 2 rows of 3 columns: 0 1 2 / 10 11 12.
    value = torch.tensor([0.0, 1, 2, 10, 11, 12]).view(1, 6, 1, 1)
    x, y = torch.tensor([0.5, 1.25, 2.5, 1.0]) / 3, torch.tensor([0.5, 1.25, 1.0, 2.0]) / 2
    locations = torch.stack((x, y), -1).view(1, 4, 1, 1, 1, 2)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1, 1)
    # A cell's centre; three quarters down from row 0 and right from column 0; between rows; half outside.
    expected = torch.tensor([0.0, 2 * (7.5 + 0.75), 3 * 7.0, 4 * 0.5 * 10.5]).view(1, 4, 1)
    torch.testing.assert_close(deformable_sampling(value, [(2, 3)], locations, weights), expected, rtol=0, atol=1e-5)


def test_gradients_against_finite_differences() -> None:
    shapes = [(3, 2), (1, 1)]
    value, locations, weights = example(shapes, b=2, q=2, m=2, d=2, p=2, spread=0.7, dtype=torch.float64)
    inputs = (value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(lambda v, at, by: deformable_sampling(v, shapes, at, by), inputs, eps=1e-7)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_gradients_equal_those_of_the_grid_sample_form(shapes: Shapes) -> None:
    inputs = [x.requires_grad_() for x in example(shapes, spread=0.7, dtype=torch.float64)]
    cotangent = torch.randn(2, 7, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradients(function: object) -> tuple[Tensor, ...]:
        value, locations, weights = inputs
        return torch.autograd.grad(function(value, shapes, locations, weights), inputs, cotangent)  # type: ignore[operator]

    for ours, expected in zip(gradients(deformable_sampling), gradients(reference), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_no_queries() -> None:
    shapes = [(4, 3)]
    value, locations, weights = example(shapes, q=0)
    value.requires_grad_()
    out = deformable_sampling(value, shapes, locations, weights)
    assert out.shape == (2, 0, 12)
    out.sum().backward()
    assert value.grad is not None
    assert value.grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    shapes = [(8, 8), (4, 4)]
    value, locations, weights = example(shapes)
    ours = deformable_sampling(value.to(dtype), shapes, locations, weights)
    assert ours.dtype == dtype
    # Only the values were rounded before, and only the result is rounded after.
    expected = reference(value.to(dtype).float(), shapes, locations, weights).to(dtype)
    torch.testing.assert_close(ours, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
