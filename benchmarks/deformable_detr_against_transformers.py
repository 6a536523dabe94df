"""A training step of Deformable DETR R50: Boxwright beside transformers, the same batch and precision, as a ratio.

    python benchmarks/deformable_detr_against_transformers.py
    python benchmarks/deformable_detr_against_transformers.py --image-size 512 --batch 2 --rounds 5 --variant refine

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike. Both train all but the stem and the first stage of the backbone.
The two-stage form of transformers has no loss for its proposals, and so does less.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from boxwright.backbones.resnet import ResNet
from boxwright.compose.train_options import TrainOptions
from boxwright.detector import Detector
from boxwright.heads.deformable_detr import DeformableDETR
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.queries import normalize_targets
from boxwright.structures import Category
from boxwright.training.step import targets_to
from boxwright_runtime.input_format import InputFormat
from peers import transformers_deformable_detr
from side_by_side import Row, begin, compare, make_common_parser, print_rows, random_objects
from training_steps import our_step, their_step, with_precision

NUM_CLASSES = 91
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "refine": {"refine": True},
    "two_stage": {"refine": True, "two_stage": True},
}
CASES = ("",)
QUICK = ("--image-size 64 --batch 1 --objects 2",)


def deformable_detr(variant: str) -> Detector:
    backbone = ResNet(depth=50, norm="frozen", frozen_stages=2)
    neck = DeformableEncoder(backbone.out_spec)
    head = DeformableDETR(neck.out_spec, NUM_CLASSES, **VARIANTS[variant])
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=5, devices=True)
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7, help="per image")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare a training step in each precision."""
    side = options.image_size
    for precision in options.precision:
        begin(options)
        detector = deformable_detr(options.variant).train()
        peer = transformers_deformable_detr(detector, depth=50, dropout=0.1).to(options.device)
        model = peer.model.backbone.model
        for frozen in (model.embedder, model.encoder.stages[0]):
            frozen.requires_grad_(False)
        images = torch.rand(options.batch, 3, side, side)
        generator = torch.Generator().manual_seed(0)
        targets = [random_objects(options.objects, side, NUM_CLASSES, generator) for _ in range(options.batch)]
        on_device = targets_to(targets, torch.device(options.device))
        labels = [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(on_device)]
        training = with_precision(TrainOptions(), precision)
        ours = our_step(detector, images, targets, training, options.device)
        arguments = {"pixel_values": images.to(options.device), "labels": labels}
        theirs = their_step(peer, lambda peer=peer, it=arguments: peer(**it).loss, training, options.device)
        variant = "" if options.variant == "base" else f" ({options.variant})"
        work = f"training step of Deformable DETR R50{variant}, {side} px, batch {options.batch}"
        yield compare(work, "transformers", ours, theirs, options, precision)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
