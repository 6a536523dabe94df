"""Both backends of RoIAlign beside each other: the regions of a training step, in turn, as ratios.

    python benchmarks/roi_align.py                                      512 regions of each of 4 images, 256 pixels
    python benchmarks/roi_align.py --size 800 1066 --batch 1 --regions 1000

Regions of all sizes lie on four levels (strides 4 to 32) of 256 channels, each on the level that fits it; 7 x 7 cells
with 2 x 2 samples. A ratio above 1 means: faster than torchvision's operator. Times are medians over rounds in which
both take turns, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from boxwright.ops.roi_align import RoIBackend, roi_align
from boxwright.regions.roi_extractor import region_levels
from side_by_side import Action, Row, begin, compare, make_common_parser, print_rows

CHANNELS, STRIDES = 256, (4, 8, 16, 32)
CASES = ("",)
QUICK = ("--size 64 64 --batch 1 --regions 4",)


def regions(size: tuple[int, int], count: int) -> Tensor:
    """Corner boxes on an image, of sides from 10 pixels to all of it."""
    height, width = size
    sides = torch.tensor([width, height]) * torch.rand(count, 2).pow(2).clamp(min=10 / max(size))
    corners = torch.rand(count, 2) * (torch.tensor([width, height]) - sides)
    return torch.cat((corners, corners + sides), 1)


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=7, precisions=(), devices=True)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--regions", type=int, default=512, help="of each image")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare forward, and forward and backward; in float32, in which regions are sampled under autocast too."""
    begin(options)
    size = tuple(options.size)
    maps = [
        torch.randn(options.batch, CHANNELS, -(-size[0] // stride), -(-size[1] // stride))
        .to(options.device)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for stride in STRIDES
    ]
    boxes = regions(size, options.batch * options.regions).to(options.device)
    images = torch.arange(len(boxes), device=options.device) % options.batch
    levels = region_levels(boxes, STRIDES)
    change = torch.randn(len(boxes), CHANNELS, 7, 7).to(options.device)

    def form(backend: RoIBackend) -> Callable[[], Tensor]:
        return lambda: roi_align(maps, STRIDES, boxes, images, levels, output_size=7, backend=backend)

    def back(action: Callable[[], Tensor]) -> Action:
        return lambda: torch.autograd.grad(action(), maps, change)

    ours, theirs = form("embedding_bag"), form("torchvision")
    work = f"RoIAlign of {len(boxes):,} regions on four levels of {options.batch} images, {size[0]} x {size[1]} px"
    yield compare(f"{work}, forward", "torchvision", torch.no_grad()(ours), torch.no_grad()(theirs), options)
    yield compare(f"{work}, forward and backward", "torchvision", back(ours), back(theirs), options)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
