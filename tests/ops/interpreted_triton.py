"""The process that ``test_deformable_triton.py`` starts, whose Triton interprets its kernels on the CPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

# Read when Triton is imported.
os.environ["TRITON_INTERPRET"] = "1"

import torch
from deformable_cases import Points, Shapes, cotangent, example, smooth_example
from torch import Tensor

from boxwright.ops.deformable import deformable_sampling

Case = tuple[Tensor, Shapes, Tensor, Tensor, Points, bool]


def run_case(case: Case, wrap: Callable[[Callable[..., Tensor]], Callable[..., Tensor]]) -> list[Tensor]:
    """Compute the output and its gradients."""
    value, shapes, locations, weights, points, deterministic = case
    inputs = [x.detach().requires_grad_() for x in (value, locations, weights)]

    def sample(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
        return deformable_sampling(v, shapes, at, by, points, backend="triton", deterministic=deterministic)

    out = wrap(sample)(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, cotangent(value, locations))]


def check_gradients(b: int, deterministic: bool) -> bool:
    shapes = [(3, 2), (1, 1)]
    inputs = tuple(x.requires_grad_() for x in smooth_example(shapes, b=b, q=b, p=(b, 1)))

    def sample(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
        return deformable_sampling(v, shapes, at, by, (b, 1), backend="triton", deterministic=deterministic)

    return torch.autograd.gradcheck(sample, inputs, fast_mode=b == 2)


def check_operator() -> bool:
    from boxwright.ops.deformable import triton_kernels

    inputs = [x.requires_grad_() for x in example([(5, 9), (3, 4)])]
    outcome = torch.library.opcheck(triton_kernels._sample, (*inputs, [5, 9, 3, 4], [2, 2], False))
    return set(outcome.values()) == {"SUCCESS"}


def run(folder: Path) -> None:
    cases = torch.load(folder / "cases.pt")
    first = next(iter(cases.values()))
    # Before anything else has imported the kernels.
    results: dict[str, object] = {
        "compiled": run_case(first, lambda f: torch.compile(f, fullgraph=True, backend="aot_eager"))
    }
    results |= {name: run_case(case, lambda f: f) for name, case in cases.items()}
    for b in (1, 2):
        for deterministic in (False, True):
            results[f"gradcheck {b} {deterministic}"] = check_gradients(b, deterministic)
    results["opcheck"] = check_operator()
    torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
