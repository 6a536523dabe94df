"""D-FINE-S of Boxwright beside D-FINE of transformers: the same structure, batch and precision, in turn, as ratios.

    python benchmarks/dfine_against_transformers.py --image-size 320 --batch 4
    python benchmarks/dfine_against_transformers.py --image-size 640 --inference --precision float32

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike. Each side has weights of its own. In training transformers compares the
logits of a layer with the distributions of the next, which is as much work and another loss.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

import boxwright
from peers import transformers_dfine_s
from rtdetr_against_transformers import inferences, steps
from side_by_side import Row, begin, compare, make_common_parser, print_rows

CASES = ("--image-size 320 --batch 4", "--image-size 640 --inference")
QUICK = ("--image-size 160 --batch 1 --objects 2", "--image-size 160 --inference")


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, devices=True)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--inference", action="store_true", help="batch 1, without gradient, instead of training")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step, or inference, in each precision."""
    what, make = ("inference", inferences) if options.inference else ("training step", steps)
    batch, side = 1 if options.inference else options.batch, options.image_size
    for precision in options.precision:
        begin(options)
        detector = boxwright.build("dfine_s", num_classes=80, overrides={"image_size": side})
        peer = transformers_dfine_s(num_classes=80).to(options.device)
        ours, theirs = make(detector, peer, torch.rand(batch, 3, side, side), options, precision)
        work = f"{what} of D-FINE-S, {side} px, batch {batch}"
        yield compare(work, "transformers", ours, theirs, options, precision)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
