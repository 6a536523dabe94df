"""Attention with relative positions beside its plain form, which holds the logits of all pairs: memory and time.

    python benchmarks/bottleneck_attention.py                       2 images, 64 x 64 cells, 4 heads of width 128
    python benchmarks/bottleneck_attention.py --cells 14 --batch 8

BoTNet's first block sees 64 x 64 cells of an image of 1024 x 1024 pixels. A pass is forward and backward. Memory is
the most that a process of its own held during one pass (its peak resident size), less what it held before: weights,
input, and a pass over a small map, which loads what is loaded once. Times are medians over rounds in which both forms
take turns, so that whatever else the machine does meets both alike. Ratios are the plain form's over ours.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from boxwright.layers.position_attention import PositionAttention
from side_by_side import Row, autocast, begin, compare, make_common_parser, make_row, print_rows

FORMS = ("ours", "plain")
CASES = ("",)
QUICK = ("--cells 24 --heads 2 --head-dim 32",)


def layer_of(options: argparse.Namespace, form: str, cells: int) -> tuple[PositionAttention, Tensor]:
    """Build the layer, and an input for it."""
    torch.manual_seed(0)
    channels = options.heads * options.head_dim
    layer = PositionAttention(channels, (cells, cells), num_heads=options.heads)
    layer.count_as_published = form == "plain"
    return layer, torch.randn(options.batch, channels, cells, cells)


def run_once(layer: PositionAttention, x: Tensor, precision: str) -> None:
    for parameter in layer.parameters():
        parameter.grad = None
    with autocast(precision):
        out = layer(x.requires_grad_())
    out.sum().backward()


def peak() -> float:
    """Measure the peak resident size of this process in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def print_memory(options: argparse.Namespace) -> None:
    """Print the memory of one pass of one form; runs in a process of its own."""
    (precision,) = options.precision
    run_once(*layer_of(options, options.memory_of, 4), precision)
    layer, x = layer_of(options, options.memory_of, options.cells)
    before = peak()
    run_once(layer, x, precision)
    print(peak() - before)


def memory_of(options: argparse.Namespace, form: str, precision: str) -> float:
    """Measure the memory of one pass of one form in MiB, in a process of its own."""
    sizes = {name: getattr(options, name) for name in ("cells", "batch", "heads", "head_dim", "threads")}
    arguments = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    command = [sys.executable, __file__, *arguments, "--precision", precision, "--memory-of", form]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=5, precisions=("float32",))
    parser.add_argument("--cells", type=int, default=64, help="along each side of the map")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare time and memory of a pass in each precision."""
    for precision in options.precision:
        begin(options)
        forms = [layer_of(options, form, options.cells) for form in FORMS]
        actions = [partial(run_once, *form, precision) for form in forms]
        work = (
            f"BoTNet's attention over {options.cells} x {options.cells} cells, {options.heads} heads, batch "
            f"{options.batch}, forward and backward"
        )
        yield compare(work, "plain form", *actions, options, precision)
        memory = [tuple(memory_of(options, form, precision) for form in FORMS)]
        if all(memory[0]):  # Of a small map it is less than what the process had before.
            yield make_row(f"{work}, memory", "plain form", memory, precision, "MiB")


if __name__ == "__main__":
    given = make_parser().parse_args()
    if given.memory_of:
        begin(given)
        print_memory(given)
    else:
        print_rows(measure(given))
