"""Both backends of RoIAlign beside each other: the regions of a training step, in turn, as ratios.

    python benchmarks/roi_align.py                                      512 regions of each of 4 images, 256 pixels
    python benchmarks/roi_align.py --size 800 1066 --batch 1 --regions 1000

Regions of all sizes lie on four levels (strides 4 to 32) of 256 channels, each on the level that fits it; 7 x 7 cells
with 2 x 2 samples. A ratio above 1 means: faster than torchvision's operator. Times are medians over rounds in which
both take turns, so that whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from boxwright.ops.roi_align import RoIBackend, roi_align
from boxwright.regions.roi_extractor import region_levels
from side_by_side import Action, in_turn

CHANNELS, STRIDES = 256, (4, 8, 16, 32)


def regions(size: tuple[int, int], count: int) -> Tensor:
    """Corner boxes on an image, of sides from 10 pixels to all of it."""
    height, width = size
    sides = torch.tensor([width, height]) * torch.rand(count, 2).pow(2).clamp(min=10 / max(size))
    corners = torch.rand(count, 2) * (torch.tensor([width, height]) - sides)
    return torch.cat((corners, corners + sides), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(256, 256), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--regions", type=int, default=512, help="of each image")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    size = tuple(options.size)
    maps = [
        torch.randn(options.batch, CHANNELS, -(-size[0] // stride), -(-size[1] // stride))
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for stride in STRIDES
    ]
    boxes = regions(size, options.batch * options.regions)
    images = torch.arange(len(boxes)) % options.batch
    levels = region_levels(boxes, STRIDES)
    change = torch.randn(len(boxes), CHANNELS, 7, 7)

    def form(backend: RoIBackend) -> Callable[[], Tensor]:
        return lambda: roi_align(maps, STRIDES, boxes, images, levels, output_size=7, backend=backend)

    def back(action: Callable[[], Tensor]) -> Action:
        return lambda: torch.autograd.grad(action(), maps, change)

    backends: tuple[RoIBackend, ...] = ("torchvision", "embedding_bag")
    for what, actions in (
        ("forward", {backend: torch.no_grad()(form(backend)) for backend in backends}),
        ("forward and backward", {backend: back(form(backend)) for backend in backends}),
    ):
        seconds = dict(zip(actions, in_turn(*actions.values(), rounds=options.rounds), strict=True))
        for backend, time_of in seconds.items():
            ratio = seconds["torchvision"] / time_of
            print(f"{what:22} {backend:16} {time_of * 1e3:9.1f} ms   {ratio:6.2f} x", flush=True)


if __name__ == "__main__":
    main()
