"""The Triton kernels of deformable sampling: interpreted everywhere, compiled without a GPU, and run on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from deformable_cases import SHAPES, Points, Shapes, cotangent, example, reference, spread_points
from torch import Tensor

from boxwright.ops.deformable import HAS_TRITON, Sampling, deformable_sampling

WORKER = Path(__file__).with_name("interpreted_triton.py")

needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

Case = tuple[Tensor, Shapes, Tensor, Tensor, Points, bool]

CASES: dict[str, Case] = {
    # Samples inside, on both sides of the borders, and outside.
    **{
        str(shapes): (value, shapes, locations, weights, spread_points(2, shapes), deterministic)
        for shapes, deterministic in zip(SHAPES, (False, True, False, True, True), strict=True)
        for value, locations, weights in [example(shapes, spread=0.8)]
    },
    **{
        name + (", deterministic" if deterministic else ""): (
            value,
            [(5, 9), (3, 4)],
            locations,
            weights,
            options.get("p", (2, 2)),
            deterministic,
        )
        for name, options in {
            # Several programs, and the last one not full.
            "many queries": {"q": 91},
            "a width that is no power of two": {"d": 6, "q": 60},
            "one image": {"b": 1},
            "no queries": {"q": 0},
            "float64": {"dtype": torch.float64},
            "more points on the second level": {"p": (1, 5), "q": 91},
            "more points on the first level": {"p": (6, 3)},
        }.items()
        for deterministic in (False, True)
        for value, locations, weights in [example([(5, 9), (3, 4)], **options)]
    },
}


def expected_of(case: Case) -> list[Tensor]:
    """Compute output and gradients of the formula, in float32 at least."""
    value, shapes, locations, weights, points, _ = case
    dtype = torch.promote_types(value.dtype, torch.float32)
    inputs = [x.detach().to(dtype).requires_grad_() for x in (value, locations, weights)]
    out = reference(inputs[0], shapes, *inputs[1:], points)
    return [out.detach(), *torch.autograd.grad(out, inputs, cotangent(value, locations).to(dtype))]


def halved(case: Case, dtype: torch.dtype) -> Case:
    return (case[0].to(dtype), *case[1:])


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not HAS_TRITON:
        pytest.skip("Triton is not installed")
    folder = tmp_path_factory.mktemp("triton")
    halves = {f"half {dtype}": halved(CASES["one image"], dtype) for dtype in (torch.bfloat16, torch.float16)}
    torch.save({**CASES, **halves}, folder / "cases.pt")
    done = subprocess.run([sys.executable, str(WORKER), str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return cast(dict[str, Any], torch.load(folder / "results.pt"))


@pytest.mark.parametrize("name", CASES)
def test_output_and_gradients_equal_the_formula(name: str, interpreted: dict[str, Any]) -> None:
    tolerance = 1e-12 if name.startswith("float64") else 1e-5
    for ours, expected in zip(interpreted[name], expected_of(CASES[name]), strict=True):
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_accumulated_in_float32(dtype: torch.dtype, interpreted: dict[str, Any]) -> None:
    ours = interpreted[f"half {dtype}"]
    assert [x.dtype for x in ours] == [dtype, dtype, torch.float32, torch.float32]
    # Only values and results are rounded.
    for x, expected in zip(ours, expected_of(halved(CASES["one image"], dtype)), strict=True):
        torch.testing.assert_close(x, expected.to(x.dtype), rtol=max(1e-5, 2 * torch.finfo(x.dtype).eps), atol=1e-5)


@pytest.mark.parametrize("b", [1, 2])
@pytest.mark.parametrize("deterministic", [False, True])
def test_gradients_against_finite_differences(b: int, deterministic: bool, interpreted: dict[str, Any]) -> None:
    assert interpreted[f"gradcheck {b} {deterministic}"] is True


def test_is_an_operator_that_torch_can_compile(interpreted: dict[str, Any]) -> None:
    assert interpreted["opcheck"] is True
    for compiled, eager in zip(interpreted["compiled"], interpreted[next(iter(CASES))], strict=True):
        torch.testing.assert_close(compiled, eager, rtol=0, atol=0)


@needs_triton
@pytest.mark.parametrize("points", [(4, 4, 4, 4), (3, 6, 3, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])
def test_compiles_for_a_gpu_that_is_not_there(kernel: str, dtype: str, points: Points) -> None:
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from boxwright.ops.deformable import triton_kernels

    function = getattr(triton_kernels, kernel)
    accumulated = "fp64" if dtype == "fp64" else "fp32"
    types: dict[str, Any] = dict.fromkeys(("value", "out", "grad"), f"*{dtype}")
    types |= {"sizes": ("fp32",) * 8}
    types |= dict.fromkeys(("locations", "weights", "value_grad", "locations_grad", "weights_grad"), f"*{accumulated}")
    constants: dict[str, Any] = {"HEADS": 8, "LEVELS": 4, "WIDTH": 32, "PAIRS": 16, "CHANNELS": 32}
    constants |= {
        "POINTS": points,
        "MOST": max(points),
        "DTYPE": getattr(tl, f"float{accumulated[2:]}"),
        "ATOMIC": True,
    }
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in function.arg_names}
    source = ASTSource(function, signature, constants)
    assembly = compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": True}).asm["ptx"]
    assert ("red.global" in assembly or "atom.global" in assembly) == (kernel == "_backward_kernel")


@needs_triton
def test_is_refused_where_it_cannot_run() -> None:
    value, locations, weights = example([(5, 9)])
    with pytest.raises(ValueError, match="backend 'triton' runs on CUDA, not on cpu: take 'auto'"):
        deformable_sampling(value, [(5, 9)], locations, weights, (2,), backend="triton")


def test_boxwright_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; import boxwright; from boxwright.ops import deformable as d; "
    code += "assert not d.HAS_TRITON; assert 'boxwright.ops.deformable.triton_kernels' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env={**os.environ})


@pytest.mark.gpu
@needs_gpu
class TestOnAGpu:
    @pytest.mark.parametrize("name", CASES)
    @pytest.mark.parametrize("backend", ["auto", "embedding_bag", "grid_sample"])
    def test_output_and_gradients_equal_the_formula(self, name: str, backend: Sampling) -> None:
        value, shapes, locations, weights, points, deterministic = CASES[name]
        inputs = [x.detach().cuda().requires_grad_() for x in (value, locations, weights)]
        deterministic = deterministic and backend != "grid_sample"
        out = deformable_sampling(inputs[0], shapes, *inputs[1:], points, backend=backend, deterministic=deterministic)
        ours = [out, *torch.autograd.grad(out, inputs, cotangent(value, locations).cuda())]
        tolerance = 1e-12 if value.dtype == torch.float64 else 1e-5
        for x, expected in zip(ours, expected_of(CASES[name]), strict=True):
            torch.testing.assert_close(x.cpu(), expected, rtol=tolerance, atol=tolerance)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_deterministic_is_bit_by_bit(self, dtype: torch.dtype) -> None:
        # All samples crowd on few cells.
        value, locations, weights = example([(6, 5), (2, 3)], q=5000, m=8, d=32)
        inputs = [x.cuda().requires_grad_() for x in (value.to(dtype), locations, weights)]
        change = cotangent(inputs[0].cpu(), locations).cuda()

        def value_gradient() -> Tensor:
            shapes, tensors = [(6, 5), (2, 3)], inputs[1:]
            out = deformable_sampling(inputs[0], shapes, *tensors, (2, 2), backend="triton", deterministic=True)
            return torch.autograd.grad(out, inputs[0], change)[0]

        first = value_gradient()
        for _ in range(5):
            assert value_gradient().equal(first)

    @pytest.mark.parametrize("deterministic", [False, True])
    def test_compiles_whole(self, deterministic: bool) -> None:
        shapes = [(5, 9), (3, 4)]
        inputs = [x.cuda().requires_grad_() for x in example(shapes)]

        def sample(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
            return deformable_sampling(v, shapes, at, by, (2, 2), backend="triton", deterministic=deterministic)

        torch.compiler.reset()
        compiled = torch.compile(sample, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*inputs), sample(*inputs), rtol=0, atol=0)
