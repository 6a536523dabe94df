"""A training step of Deformable DETR R50: Boxwright beside transformers, the same batch and precision, as a ratio.

    python benchmarks/deformable_detr_against_transformers.py
    python benchmarks/deformable_detr_against_transformers.py --image-size 512 --batch 2 --rounds 5 --variant refine

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike. Both train all but the stem and the first stage of the backbone.
The two-stage form of transformers has no loss for its proposals, and so does less.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

import torch
from transformers_deformable_detr import transformers_deformable_detr

from boxwright.backbones.resnet import ResNet
from boxwright.detector import Detector
from boxwright.heads.deformable_detr import DeformableDETR
from boxwright.necks.deformable_encoder import DeformableEncoder
from boxwright.queries import normalize_targets
from boxwright.structures import Category
from boxwright_runtime.input_format import InputFormat
from side_by_side import in_turn, random_objects

NUM_CLASSES = 91
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "refine": {"refine": True},
    "two_stage": {"refine": True, "two_stage": True},
}


def deformable_detr(variant: str) -> Detector:
    backbone = ResNet(depth=50, norm="frozen", frozen_stages=2)
    neck = DeformableEncoder(backbone.out_spec)
    head = DeformableDETR(neck.out_spec, NUM_CLASSES, **VARIANTS[variant])
    categories = [Category(i, f"class {i}") for i in range(NUM_CLASSES)]
    return Detector(backbone, [neck], head, categories=categories, input_format=InputFormat())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=list(VARIANTS), default="base")
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--objects", type=int, default=7, help="per image")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    torch.manual_seed(0)
    side = options.image_size
    detector = deformable_detr(options.variant).train()
    peer = transformers_deformable_detr(detector, depth=50, dropout=0.1).train()
    model = peer.model.backbone.model
    for frozen in (model.embedder, model.encoder.stages[0]):
        frozen.requires_grad_(False)

    images = torch.rand(options.batch, 3, side, side)
    # As the training loop does on a CPU.
    channels_last = images.contiguous(memory_format=torch.channels_last)
    detector.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    targets = [random_objects(options.objects, side, NUM_CLASSES, generator) for _ in range(options.batch)]
    labels = [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(targets)]
    our_optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=1e-5)
    their_optimizer = torch.optim.AdamW([p for p in peer.parameters() if p.requires_grad], lr=1e-5)

    def ours() -> None:
        our_optimizer.zero_grad()
        sum(detector.loss(detector(channels_last, None, targets), targets).values()).backward()
        our_optimizer.step()

    def theirs() -> None:
        their_optimizer.zero_grad()
        peer(pixel_values=images, labels=labels).loss.backward()
        their_optimizer.step()

    our_time, their_time = in_turn(ours, theirs, rounds=options.rounds)
    print(
        f"Deformable DETR R50 ({options.variant}), {side} pixels, batch {options.batch}, "
        f"{torch.get_num_threads()} threads, training step: boxwright {our_time * 1e3:.0f} ms, "
        f"transformers {their_time * 1e3:.0f} ms, ratio {their_time / our_time:.2f}"
    )


if __name__ == "__main__":
    main()
