"""The backends of deformable sampling beside each other: the encoder of Deformable DETR, in turn, as ratios.

    python benchmarks/deformable_sampling.py                              640 x 640 on the CPU
    python benchmarks/deformable_sampling.py --device cuda --size 800 1066 --precision bfloat16

Every token of four levels (strides 8 to 64) is a query with 8 heads of width 32 and 4 points a level, at offsets of a
few cells from its own cell; ``--random`` scatters the samples over the map instead. A ratio above 1 means: faster, or
smaller, than ``grid_sample``, run eagerly; on values of bfloat16 all compute in float32, as under autocast. Times are
medians over rounds in which both take turns, so that whatever else the machine does meets both alike; yet with two
threads on two busy cores the backend of more and shorter steps suffers more. Memory is the peak above the inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from boxwright.ops.deformable import HAS_TRITON, Sampling, deformable_sampling
from side_by_side import Action, Row, begin, compare, make_common_parser, make_row, print_rows

HEADS, WIDTH, POINTS, STRIDES = 8, 32, 4, (8, 16, 32, 64)
PEER = "grid_sample"
CASES = ("",)
QUICK = ("--size 64 64 --without-compile",)


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


class Forms:
    """The backends on the same inputs.

    Args:
        options: of the benchmark.
        precision: of the values.
    """

    def __init__(self, options: argparse.Namespace, precision: str) -> None:
        device = torch.device(options.device)
        tensors, self.shapes = encoder_inputs(tuple(options.size), options.batch, scattered=options.random)
        value, *others = (x.to(device).requires_grad_() for x in tensors)
        self.inputs = (value.detach().to(getattr(torch, precision)).requires_grad_(), *others)
        self.change = torch.randn(value.flatten(2).shape, device=device, dtype=self.inputs[0].dtype)
        runs_here = {"triton": device.type == "cuda" and HAS_TRITON, "auto": False, PEER: False}
        self.backends: list[Sampling] = [name for name in get_args(Sampling) if runs_here.get(name, True)]

    def forward(
        self, backend: Sampling, *, deterministic: bool = False, compiled: bool = False
    ) -> Callable[[], Tensor]:
        points = (POINTS,) * len(STRIDES)

        def sample(value: Tensor, at: Tensor, by: Tensor) -> Tensor:
            return deformable_sampling(value, self.shapes, at, by, points, backend=backend, deterministic=deterministic)

        run = torch.compile(sample, fullgraph=True) if compiled else sample
        return lambda: run(*self.inputs)

    def both(self, backend: Sampling, *, deterministic: bool = False) -> Action:
        forward = self.forward(backend, deterministic=deterministic)
        return lambda: torch.autograd.grad(forward(), self.inputs, self.change)


def peak_memory(action: Action) -> float:
    """Measure the peak of memory in MiB above the state before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    action()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=11, precisions=("float32",), devices=True)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--random", action="store_true", help="scatter the samples")
    parser.add_argument("--without-compile", action="store_true", help="leave out torch.compile")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare each backend with ``grid_sample``."""
    no_grad = torch.no_grad()
    for precision in options.precision:
        begin(options)
        forms = Forms(options, precision)
        samples = "scattered" if options.random else "local"
        for backend in forms.backends:
            work = (
                f"deformable sampling with {backend}, {options.size[0]} x {options.size[1]} px, "
                f"batch {options.batch}, {samples} samples"
            )
            row = partial(compare, peer=PEER, options=options, precision=precision)
            plain = no_grad(forms.forward(PEER))
            yield row(f"{work}, forward", ours=no_grad(forms.forward(backend)), theirs=plain)
            both, their_both = forms.both(backend), forms.both(PEER)
            yield row(f"{work}, forward and backward", ours=both, theirs=their_both)
            if backend == "triton":
                fixed = forms.both(backend, deterministic=True)
                yield row(f"{work}, deterministic, forward and backward", ours=fixed, theirs=their_both)
            if not options.without_compile:
                compiled = no_grad(forms.forward(backend, compiled=True))
                yield row(f"{work}, forward, torch.compile", ours=compiled, theirs=plain)
            if torch.device(options.device).type == "cuda":
                memory = [(peak_memory(both), peak_memory(their_both))]
                yield make_row(f"{work}, forward and backward, peak memory", PEER, memory, precision, "MiB")


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
