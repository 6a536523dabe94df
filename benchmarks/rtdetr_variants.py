"""Latency of RT-DETR's encoder variants and of its decoder layers, beside the paper's, as ratios.

    python benchmarks/rtdetr_variants.py --image-size 640 --rounds 5
    python benchmarks/rtdetr_variants.py --device cuda --rounds 50

The whole detector, R50, one image, norms folded for inference, float32. All models take turns in one process, so that
whatever else the machine does meets all alike; times are medians. The paper's are of TensorRT in float16 on a T4
(tables 3 and 5): an ordering to compare with, not numbers to reach.

Measured with the first command on one thread of an AMD EPYC, torch 2.15.0, in ms and as ratios, beside the paper's:

| encoder | ms | ratio | paper, ms | paper, ratio |   | decoder layers | ms | ratio | paper, ms | paper, ratio |
|---|---|---|---|---|---|---|---|---|---|---|
| A | 1010 | 1.00 | 7.2 | 1.00 | | 1 | 1324 | 1.00 | 7.0 | 1.00 |
| B | 1857 | 1.84 | 11.1 | 1.54 | | 2 | 1338 | 1.01 | 7.5 | 1.07 |
| C | 2299 | 2.28 | 13.3 | 1.85 | | 3 | 1363 | 1.03 | 7.9 | 1.13 |
| D | 1986 | 1.97 | 12.2 | 1.69 | | 4 | 1404 | 1.06 | 8.3 | 1.19 |
| D_S5 | 1182 | 1.17 | 7.9 | 1.10 | | 5 | 1418 | 1.07 | 8.8 | 1.26 |
| E | 1481 | 1.47 | 9.3 | 1.29 | | 6 | 1447 | 1.09 | 9.3 | 1.33 |

The order of the encoders is the paper's. What C costs beyond A is 1.52 times what B costs beyond A, and 1.56 times in
the paper. A decoder layer costs a CPU less than a GPU: it is little arithmetic in many small operations.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

import boxwright

ENCODERS = {"A": 7.2, "B": 11.1, "C": 13.3, "D": 12.2, "D_S5": 7.9, "E": 9.3}
"""Milliseconds in the paper, by variant."""

DECODERS = {1: 7.0, 2: 7.5, 3: 7.9, 4: 8.3, 5: 8.8, 6: 9.3}
"""Milliseconds in the paper, by decoder layers that run."""


def in_turn(actions: list[Callable[[], object]], rounds: int, device: str) -> list[float]:
    """Median seconds of each; the first round warms up."""
    seconds: list[list[float]] = [[] for _ in actions]
    for i in range(rounds + 1):
        for action, taken in zip(actions, seconds, strict=True):
            start = time.perf_counter()
            action()
            if device == "cuda":
                torch.cuda.synchronize()
            if i > 0:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


def runner(images: Tensor, *, variant: str = "E", eval_layers: int = 6) -> Callable[[], object]:
    torch.manual_seed(0)
    overrides = {"neck.variant": variant, "head.eval_layers": eval_layers}
    detector = boxwright.build("rtdetr_r50", num_classes=80, overrides=overrides)
    folded = detector.to(images.device, memory_format=torch.channels_last).fold()

    @torch.inference_mode()
    def run() -> object:
        return folded(images)

    return run


def print_table(name: str, published: Mapping[str, float] | Mapping[int, float], seconds: list[float]) -> None:
    """Print Markdown; ratios are to the first row."""
    print(f"\n| {name} | ms | ratio | the paper's ms | the paper's ratio |\n|---|---|---|---|---|")
    first = next(iter(published.values()))
    for (key, theirs), ours in zip(published.items(), seconds, strict=True):
        print(f"| {key} | {ours * 1e3:.0f} | {ours / seconds[0]:.2f} | {theirs} | {theirs / first:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()

    side, device = options.image_size, options.device
    images = torch.rand(1, 3, side, side).to(device, memory_format=torch.channels_last)
    runs = [runner(images, variant=variant) for variant in ENCODERS]
    runs += [runner(images, eval_layers=count) for count in DECODERS]
    seconds = in_turn(runs, options.rounds, device)
    print(f"RT-DETR R50, {side} pixels, {device}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print_table("encoder", ENCODERS, seconds[: len(ENCODERS)])
    print_table("decoder layers", DECODERS, seconds[len(ENCODERS) :])


if __name__ == "__main__":
    main()
