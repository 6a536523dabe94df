"""A training step of D-FINE-S of Boxwright beside its authors' code: the same structure, batch and precision, in turn.

    python benchmarks/dfine_against_authors.py --originals DIR --image-size 320 --batch 4

``DIR`` has a clone of Peterande/D-FINE, as for ``make conformance``. A ratio above 1 means that Boxwright is faster.
Each side has weights of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

import boxwright
from peers import build_dfine_s, make_labels
from side_by_side import Row, begin, compare, make_common_parser, print_rows, random_objects
from training_steps import our_step, their_step, with_precision

Loss = Callable[[], Tensor]


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__)
    parser.add_argument("--originals", type=Path, required=True, metavar="DIR", help="folder of D-FINE")
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step in each precision."""
    side = options.image_size
    for precision in options.precision:
        begin(options)
        detector = boxwright.build("dfine_s", num_classes=80, overrides={"image_size": side})
        model, criterion = build_dfine_s(options.originals / "D-FINE")
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(options.batch, 3, side, side)
        targets = [random_objects(options.objects, side, 80, generator) for _ in images]
        training = with_precision(detector.recipe.train, precision)
        theirs = their_step(model, make_loss(model, criterion, images, make_labels(targets)), training, "cpu")
        ours = our_step(detector, images, targets, training, "cpu")
        work = f"training step of D-FINE-S, {side} px, batch {options.batch}"
        yield compare(work, "the authors", ours, theirs, options, precision)


def make_loss(model: nn.Module, criterion: nn.Module, images: Tensor, labels: list[dict[str, Tensor]]) -> Loss:
    """Make the function that computes the authors' loss."""
    return lambda: torch.stack(list(criterion(model(images, labels), labels).values())).sum()


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
