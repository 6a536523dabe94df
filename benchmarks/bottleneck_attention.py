"""Attention with relative positions beside its plain form, which holds the logits of all pairs: memory and time.

    python benchmarks/bottleneck_attention.py                       2 images, 64 x 64 cells, 4 heads of width 128
    python benchmarks/bottleneck_attention.py --cells 14 --batch 8

BoTNet's first block sees 64 x 64 cells of an image of 1024 x 1024 pixels. A pass is forward and backward. Memory is
the most that a process of its own held during one pass (its peak resident size), less what it held before: weights,
input, and a pass over a small map, which loads what is loaded once. Times are medians over rounds in which both forms
take turns, so that whatever else the machine does meets both alike. Ratios are ours over the plain form's.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from functools import partial

import torch
from torch import Tensor

from boxwright.layers.position_attention import PositionAttention
from side_by_side import in_turn

FORMS = ("ours", "plain")


def layer_of(options: argparse.Namespace, form: str, cells: int) -> tuple[PositionAttention, Tensor]:
    """Build the layer, and an input for it."""
    torch.manual_seed(0)
    channels = options.heads * options.head_dim
    layer = PositionAttention(channels, (cells, cells), num_heads=options.heads)
    layer.count_as_published = form == "plain"
    return layer, torch.randn(options.batch, channels, cells, cells)


def run_once(layer: PositionAttention, x: Tensor) -> None:
    for parameter in layer.parameters():
        parameter.grad = None
    layer(x.requires_grad_()).sum().backward()


def peak() -> float:
    """Measure the peak resident size of this process in MiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (2**20 if sys.platform == "darwin" else 2**10)


def measure_memory(options: argparse.Namespace) -> None:
    """Print the memory of one pass of one form; runs in a process of its own."""
    run_once(*layer_of(options, options.memory_of, 4))
    layer, x = layer_of(options, options.memory_of, options.cells)
    before = peak()
    run_once(layer, x)
    print(peak() - before)


def seconds_of(options: argparse.Namespace) -> dict[str, float]:
    """Measure the median seconds of a pass of each form."""
    forms = [layer_of(options, form, options.cells) for form in FORMS]
    times = in_turn(*(partial(run_once, *form) for form in forms), rounds=options.rounds, warm_up=1)
    return dict(zip(FORMS, times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=64, help="along each side of the map")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-of", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        measure_memory(options)
        return

    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of"]
    memory = {
        form: float(subprocess.run([*command, form], check=True, capture_output=True, text=True).stdout)
        for form in FORMS
    }
    seconds = seconds_of(options)
    for form in FORMS:
        print(f"{form:6} {memory[form]:9.0f} MiB {seconds[form] * 1e3:9.1f} ms")
    print(f"ratio  {memory['ours'] / memory['plain']:9.3f}     {seconds['ours'] / seconds['plain']:9.3f}")


if __name__ == "__main__":
    main()
