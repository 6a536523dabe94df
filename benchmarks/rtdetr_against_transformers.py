"""RT-DETR of Boxwright beside RT-DETR of transformers: the same model, batch and precision, in turn, as ratios.

    python benchmarks/rtdetr_against_transformers.py --depth 18 --image-size 256 --batch 4
    python benchmarks/rtdetr_against_transformers.py --depth 18 --image-size 640 --inference --precision float32

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

import boxwright
from boxwright.detector import Detector
from boxwright.queries import normalize_targets
from boxwright.training.step import targets_to
from peers import transformers_rtdetr
from side_by_side import Action, Row, autocast, begin, compare, make_common_parser, print_rows, random_objects
from training_steps import our_step, their_step, with_precision

CASES = (
    "--depth 18 --image-size 256 --batch 4",
    "--depth 50 --image-size 640 --batch 2 --rounds 5",
    "--depth 18 --image-size 640 --inference",
)
QUICK = ("--depth 18 --image-size 160 --batch 1 --objects 2", "--depth 18 --image-size 160 --inference")


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, devices=True)
    parser.add_argument("--depth", type=int, choices=(18, 50), default=18)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--inference", action="store_true", help="batch 1, without gradient, instead of training")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step, or inference, in each precision."""
    what = "inference" if options.inference else "training step"
    batch = 1 if options.inference else options.batch
    for precision in options.precision:
        begin(options)
        detector = boxwright.build(
            f"rtdetr_r{options.depth}", num_classes=80, overrides={"image_size": options.image_size}
        )
        peer = transformers_rtdetr(options.depth, detector, num_denoising=100).to(options.device)
        images = torch.rand(batch, 3, options.image_size, options.image_size)
        make = inferences if options.inference else steps
        ours, theirs = make(detector, peer, images, options, precision)
        work = f"{what} of RT-DETR-R{options.depth}, {options.image_size} px, batch {batch}"
        yield compare(work, "transformers", ours, theirs, options, precision)


def steps(
    detector: Detector, peer: nn.Module, images: Tensor, options: argparse.Namespace, precision: str
) -> tuple[Action, Action]:
    """A training step of each."""
    side, generator = options.image_size, torch.Generator().manual_seed(0)
    targets = [random_objects(options.objects, side, 80, generator) for _ in images]
    on_device = targets_to(targets, torch.device(options.device))
    labels = [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(on_device)]
    their_images = images.to(options.device)
    training = with_precision(detector.recipe.train, precision)
    ours = our_step(detector, images, targets, training, options.device)
    return ours, their_step(peer, lambda: peer(pixel_values=their_images, labels=labels).loss, training, options.device)


def inferences(
    detector: Detector, peer: nn.Module, images: Tensor, options: argparse.Namespace, precision: str
) -> tuple[Action, Action]:
    """A forward pass of each, of ours as it is used: norms folded, channels last."""
    folded = detector.to(options.device, memory_format=torch.channels_last).fold()
    their_images = images.to(options.device)
    our_images = their_images.contiguous(memory_format=torch.channels_last)
    peer.eval()

    def ours() -> None:
        with torch.inference_mode(), autocast(precision, options.device):
            folded(our_images)

    def theirs() -> None:
        with torch.inference_mode(), autocast(precision, options.device):
            peer(pixel_values=their_images)

    return ours, theirs


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
