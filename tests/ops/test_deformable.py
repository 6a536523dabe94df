"""Deformable sampling without Triton, against a plain loop over ``grid_sample``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from deformable_cases import (
    SHAPES,
    SPREADS,
    Points,
    Shapes,
    cotangent,
    example,
    reference,
    smooth_example,
    spread_points,
)
from torch import Tensor, nn

from boxwright.layers.deformable_attention import DeformableDecoderLayer
from boxwright.ops import deformable
from boxwright.ops.deformable import choose_backend, deformable_sampling
from boxwright.ops.deformable.grid_sample import grid_sample_sampling

Backend = Literal["grid_sample", "embedding_bag"]

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
backends = pytest.mark.parametrize("backend", ["grid_sample", "embedding_bag"])
maps = pytest.mark.parametrize("shapes", SHAPES, ids=str)


@backends
@maps
@pytest.mark.parametrize("spread", SPREADS.values(), ids=list(SPREADS))
@pytest.mark.parametrize("b", [1, 2])
def test_equals_the_grid_sample_form(backend: Backend, shapes: Shapes, spread: float, b: int) -> None:
    value, locations, weights = example(shapes, spread=spread, b=b)
    points = spread_points(2, shapes)
    expected = reference(value, shapes, locations, weights, points)
    assert expected.abs().max() > 0.01
    ours = deformable_sampling(value, shapes, locations, weights, points, backend=backend)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@backends
@maps
def test_exactly_on_centers_corners_and_borders(backend: Backend, shapes: Shapes) -> None:
    value, locations, weights = example(shapes, q=8, m=1, p=1)
    # In units of the whole map: corners, edges, the middle, and one map beyond each side.
    positions = torch.tensor(
        [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.0], [1.0, 0.5], [-1.0, 0.5], [0.5, 2.0]]
    )
    locations = positions.view(1, 8, 1, 1, 2).expand_as(locations).contiguous()
    points = spread_points(1, shapes)
    ours = deformable_sampling(value, shapes, locations, weights, points, backend=backend)
    torch.testing.assert_close(ours, reference(value, shapes, locations, weights, points), rtol=0, atol=1e-5)
    assert ours[:, 6:].abs().max() == 0
    # A quarter of the corner's cell is all there is at the very corner.
    if len(shapes) == 1:
        torch.testing.assert_close(ours[:, 0], 0.25 * weights[:, 0, 0] * value[:, 0, 0], rtol=0, atol=1e-6)


@backends
def test_numbers_worked_out_by_hand(backend: Backend) -> None:
    # 2 rows of 3 columns: 0 1 2 / 10 11 12.
    value = torch.tensor([0.0, 1, 2, 10, 11, 12]).view(1, 6, 1, 1)
    x, y = torch.tensor([0.5, 1.25, 2.5, 1.0]) / 3, torch.tensor([0.5, 1.25, 1.0, 2.0]) / 2
    locations = torch.stack((x, y), -1).view(1, 4, 1, 1, 2)
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 4, 1, 1)
    # A cell's center; three quarters down from row 0 and right from column 0; between rows; half outside.
    expected = torch.tensor([0.0, 2 * (7.5 + 0.75), 3 * 7.0, 4 * 0.5 * 10.5]).view(1, 4, 1)
    ours = deformable_sampling(value, [(2, 3)], locations, weights, (1,), backend=backend)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@backends
def test_numbers_of_points_worked_out_by_hand(backend: Backend) -> None:
    # Levels of 1 x 2 cells (5, 7) with one point, of one cell (100) with two, of 2 x 1 cells (2, 4) with three.
    value = torch.tensor([5.0, 7, 100, 2, 4]).view(1, 5, 1, 1)
    shapes, points = [(1, 2), (1, 1), (2, 1)], (1, 2, 3)
    x = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
    y = torch.tensor([0.5, 0.5, 0.5, 0.25, 0.5, 0.75])
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 3.0, 4.0]).view(1, 1, 1, 6)
    locations = torch.stack((x, y), -1).view(1, 1, 1, 6, 2)
    ours = deformable_sampling(value, shapes, locations, weights, points, backend=backend)
    assert ours.item() == pytest.approx(6 + 0.5 * 100 + 2 * 2 + 3 * 3 + 4 * 4)


@backends
@pytest.mark.parametrize("points", [(3, 6, 3), (1, 2, 5), (4, 1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_level_has_its_own_number_of_points(backend: Backend, points: Points, dtype: torch.dtype) -> None:
    shapes = SHAPES[0]
    inputs = list(example(shapes, p=points, spread=0.7, dtype=dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12

    def ours(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
        return deformable_sampling(v, shapes, at, by, points, backend=backend)

    def formula(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
        return reference(v, shapes, at, by, points)

    torch.testing.assert_close(ours(*inputs), formula(*inputs), rtol=0, atol=tolerance)
    for x, y in zip(gradients(ours, inputs), gradients(formula, inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("points", [(2,), (2, 2, 2), (2, 3)], ids=str)
def test_numbers_of_points_fit_levels_and_locations(points: Points) -> None:
    shapes = [(5, 9), (3, 4)]
    value, locations, weights = example(shapes)
    with pytest.raises(ValueError, match=r"points are \[2.*\], for 2 levels and 4 locations of each head"):
        deformable_sampling(value, shapes, locations, weights, points)


def test_what_is_not_a_number_stays_so_and_is_no_address() -> None:
    shapes = [(5, 9), (3, 4)]
    value, locations, weights = example(shapes)
    expected = deformable_sampling(value, shapes, locations, weights, (2, 2)).unflatten(2, (3, 4))
    locations[0, 3, 1, :2] = float("nan")
    locations[1, 2, 0] = torch.tensor([float("inf"), -1e30])
    ours = deformable_sampling(value, shapes, locations, weights, (2, 2)).unflatten(2, (3, 4))
    assert ours[0, 3, 1].isnan().all()
    assert (ours[1, 2, 0] == 0).all()
    expected[0, 3, 1], expected[1, 2, 0] = float("nan"), 0
    torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


@backends
@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("shapes", [[(3, 2), (1, 1)], [(1, 3), (2, 1)]], ids=str)
def test_gradients_against_finite_differences(backend: Backend, shapes: Shapes, b: int) -> None:
    inputs = tuple(x.requires_grad_() for x in smooth_example(shapes, b=b, p=(1, 2)))

    def sample(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable_sampling(value, shapes, locations, weights, (1, 2), backend=backend)

    assert torch.autograd.gradcheck(sample, inputs, fast_mode=b == 2)


def gradients(function: Callable[..., Tensor], inputs: list[Tensor], *, names: str = "vlw") -> tuple[Tensor, ...]:
    """Differentiate by value, locations and weights, or by some of them."""
    for name, x in zip("vlw", inputs, strict=True):
        x.requires_grad_(name in names)
    variables = [x for x in inputs if x.requires_grad]
    return torch.autograd.grad(function(*inputs), variables, cotangent(*inputs[:2]))


@backends
@maps
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_gradients_equal_those_of_the_grid_sample_form(
    backend: Backend, shapes: Shapes, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = list(example(shapes, spread=0.7, dtype=dtype))
    points = spread_points(2, shapes)
    ours = gradients(lambda v, at, by: deformable_sampling(v, shapes, at, by, points, backend=backend), inputs)
    expected = gradients(lambda v, at, by: reference(v, shapes, at, by, points), inputs)
    for x, y in zip(ours, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("names", ["v", "l", "w", "vw", "lw"])
def test_gradients_of_some_inputs_only(names: str) -> None:
    shapes = [(5, 9), (3, 4)]
    inputs = list(example(shapes))
    every = gradients(lambda v, at, by: deformable_sampling(v, shapes, at, by, (2, 2)), inputs)
    some = gradients(lambda v, at, by: deformable_sampling(v, shapes, at, by, (2, 2)), inputs, names=names)
    for name, ours in zip(names, some, strict=True):
        torch.testing.assert_close(ours, every["vlw".index(name)], rtol=0, atol=0)


def test_a_second_derivative_is_refused_and_not_wrong() -> None:
    shapes = [(3, 4)]
    inputs = [x.requires_grad_() for x in example(shapes)]
    out = deformable_sampling(inputs[0], shapes, *inputs[1:], (2,)).square().sum()
    (first,) = torch.autograd.grad(out, inputs[1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@backends
def test_no_queries(backend: Backend) -> None:
    shapes = [(4, 3), (1, 1)]
    inputs = [x.requires_grad_() for x in example(shapes, q=0)]
    out = deformable_sampling(inputs[0], shapes, *inputs[1:], (2, 2), backend=backend)
    assert out.shape == (2, 0, 12)
    out.sum().backward()
    assert inputs[0].grad is not None
    assert inputs[0].grad.shape == (2, 13, 3, 4)
    assert inputs[0].grad.abs().max() == 0
    for x in inputs[1:]:
        assert x.grad is not None
        assert x.grad.shape == x.shape


@backends
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(backend: Backend, dtype: torch.dtype) -> None:
    shapes = [(8, 8), (4, 4)]
    value, locations, weights = example(shapes)
    ours = deformable_sampling(value.to(dtype), shapes, locations, weights, (2, 2), backend=backend)
    assert ours.dtype == dtype
    # Only the values were rounded before, and only the result is rounded after.
    expected = reference(value.to(dtype).float(), shapes, locations, weights, (2, 2)).to(dtype)
    torch.testing.assert_close(ours, expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole_forward_and_backward(compiler: str) -> None:
    shapes = [(5, 9), (3, 4)]
    inputs = list(example(shapes, p=(3, 1)))

    def sample(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable_sampling(value, shapes, locations, weights, (3, 1))

    torch.compiler.reset()
    compiled = torch.compile(sample, fullgraph=True, backend=compiler)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), sample(*inputs), rtol=0, atol=1e-6)
    for ours, expected in zip(gradients(compiled, inputs), gradients(sample, inputs), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


class Sampler(nn.Module):
    def forward(self, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return deformable_sampling(value, [(5, 9), (3, 4)], locations, weights, (2, 2))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_a_free_batch(strict: bool) -> None:
    batch = torch.export.Dim("batch", min=1, max=64)
    inputs = example([(5, 9), (3, 4)])
    program = torch.export.export(Sampler(), inputs, dynamic_shapes=({0: batch},) * 3, strict=strict)
    for count in (1, 3):
        others = example([(5, 9), (3, 4)], b=count)
        torch.testing.assert_close(program.module()(*others), Sampler()(*others), rtol=0, atol=0)


class TestChoiceOfBackend:
    def test_auto_goes_by_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deformable, "HAS_TRITON", True)
        assert choose_backend("auto", CPU) == "embedding_bag"
        assert choose_backend("auto", CUDA) == "triton"
        monkeypatch.setattr(deformable, "HAS_TRITON", False)
        assert choose_backend("auto", CUDA) == "embedding_bag"

    def test_what_is_exported_needs_no_triton(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deformable, "HAS_TRITON", True)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        assert choose_backend("auto", CUDA) == "embedding_bag"

    @pytest.mark.parametrize("name", ["grid_sample", "embedding_bag", "triton"])
    def test_one_can_be_forced(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deformable, "HAS_TRITON", True)
        assert choose_backend(name, CPU) == name
        assert choose_backend(name, CUDA) == name

    def test_a_layer_can_force_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        called = []

        def recorded(*inputs: Any) -> Tensor:
            called.append(inputs)
            return grid_sample_sampling(*inputs)

        monkeypatch.setattr(deformable, "grid_sample_sampling", recorded)
        query, memory, points = torch.rand(1, 5, 16), torch.rand(1, 12, 16), torch.rand(1, 5, 1, 2)
        torch.manual_seed(0)
        layer = DeformableDecoderLayer(16, num_heads=2, num_levels=1, sampling="grid_sample").eval()
        plain = layer(query, query, points, memory, [(3, 4)])
        assert len(called) == 1
        layer.cross_attention.sampling = "auto"
        torch.testing.assert_close(layer(query, query, points, memory, [(3, 4)]), plain, rtol=0, atol=1e-5)
        assert len(called) == 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"name": "cuda", "device": CPU},
                r"backend is one of \['auto', 'grid_sample', 'embedding_bag', 'triton'\], not 'cuda'",
            ),
            ({"name": "triton", "device": CUDA}, "needs the package triton, which is not installed: take 'auto'"),
            (
                {"name": "grid_sample", "device": CUDA, "deterministic": True},
                "no deterministic gradient on CUDA: take 'embedding_bag'",
            ),
        ],
    )
    def test_what_is_refused(self, options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deformable, "HAS_TRITON", False)
        with pytest.raises(ValueError, match=message):
            choose_backend(**options)
