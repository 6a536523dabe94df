"""The backends of deformable sampling beside each other: the encoder of Deformable DETR, in turn, as ratios.

    python benchmarks/deformable_sampling.py                              640 x 640 on the CPU
    python benchmarks/deformable_sampling.py --device cuda --size 800 1066 --dtype bfloat16

Every token of four levels (strides 8 to 64) is a query with 8 heads of width 32 and 4 points a level, at offsets of a
few cells from its own cell; ``--random`` scatters the samples over the map instead. A ratio above 1 means: faster, or
smaller, than ``grid_sample``, run eagerly; on half precision it computes in float32, as under autocast. Times are
medians over rounds in which all take turns, so that whatever else the machine does meets all alike; yet with two
threads on two busy cores the backend of more and shorter steps suffers more. Memory is the peak above the inputs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor

from boxwright.ops.deformable import HAS_TRITON, Sampling, deformable_sampling

Action = Callable[[], object]

HEADS, WIDTH, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)


def encoder_inputs(size: tuple[int, int], batch: int, *, scattered: bool) -> tuple[list[Tensor], list[tuple[int, int]]]:
    """Draw value, locations and weights, and list the shapes of the levels."""
    shapes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in STRIDES]
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    centers = torch.cat(
        [
            torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(-1)  # (h w) (x, y)
            for h, w in shapes
        ]
    )
    cells = torch.tensor([(w, h) for h, w in shapes]).repeat_interleave(POINTS, 0)
    offsets = 3 * torch.randn(batch, tokens, HEADS, levels * POINTS, 2)
    locations = centers.view(1, tokens, 1, 1, 2) + offsets / cells
    weights = torch.rand(batch, tokens, HEADS, levels * POINTS).softmax(-1)
    value = torch.randn(batch, tokens, HEADS, WIDTH)
    return [value, torch.rand_like(locations) if scattered else locations, weights], shapes


def in_turn(actions: dict[str, Action], rounds: int, wait: Action) -> dict[str, float]:
    """Measure the median seconds of each; the first two rounds warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for i in range(rounds + 2):
        for name, action in actions.items():
            wait()
            start = time.perf_counter()
            action()
            wait()
            if i >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def peak_memory(action: Action) -> int:
    """Measure the peak of memory in bytes above the state before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    return torch.cuda.max_memory_allocated() - before


def report(what: str, numbers: dict[str, float], unit: str, scale: float) -> None:
    for name, number in numbers.items():
        ratio = numbers["grid_sample"] / number
        print(f"{what:24} {name:28} {number * scale:9.2f} {unit}   {ratio:6.2f} x", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(640, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="of the values")
    parser.add_argument("--random", action="store_true", help="scatter the samples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    gpu = device.type == "cuda"
    points = (POINTS,) * len(STRIDES)
    tensors, shapes = encoder_inputs(tuple(options.size), options.batch, scattered=options.random)
    value, locations, weights = (x.to(device).requires_grad_() for x in tensors)
    value = value.detach().to(getattr(torch, options.dtype)).requires_grad_()
    change = torch.randn(value.flatten(2).shape, device=device, dtype=value.dtype)

    def form(backend: Sampling, *, deterministic: bool = False, compiled: bool = False) -> Callable[[], Tensor]:
        def sample(v: Tensor, at: Tensor, by: Tensor) -> Tensor:
            return deformable_sampling(v, shapes, at, by, points, backend=backend, deterministic=deterministic)

        run = torch.compile(sample, fullgraph=True) if compiled else sample
        return lambda: run(value, locations, weights)

    def without_gradient(action: Callable[[], Tensor]) -> Action:
        return torch.no_grad()(action)

    def and_back(action: Callable[[], Tensor]) -> Action:
        return lambda: torch.autograd.grad(action(), (value, locations, weights), change)

    backends: list[Sampling] = [
        name for name in get_args(Sampling) if name != "auto" and (name != "triton" or (gpu and HAS_TRITON))
    ]
    eager = {name: form(name) for name in backends}
    backward = {name: and_back(action) for name, action in eager.items()}
    if "triton" in backends:
        backward["triton, deterministic"] = and_back(form("triton", deterministic=True))
    forward = {name: without_gradient(action) for name, action in eager.items()}
    compiled = {f"{name}, compiled": without_gradient(form(name, compiled=True)) for name in backends}

    where = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} threads"
    print(
        f"{options.size[0]} x {options.size[1]}, batch {options.batch}, {options.dtype}, "
        f"{'scattered' if options.random else 'local'} samples, {where}; against grid_sample:"
    )
    wait: Action = torch.cuda.synchronize if gpu else lambda: None
    report("forward", in_turn(forward, options.rounds, wait), "ms", 1e3)
    report("forward and backward", in_turn(backward, options.rounds, wait), "ms", 1e3)
    both = {"grid_sample": forward["grid_sample"]} | compiled
    report("forward, torch.compile", in_turn(both, options.rounds, wait), "ms", 1e3)
    if gpu:
        report("peak memory, both ways", {name: peak_memory(x) for name, x in backward.items()}, "MB", 1e-6)


if __name__ == "__main__":
    main()
