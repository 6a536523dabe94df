"""RT-DETR of Boxwright beside RT-DETR of transformers: the same model, batch and precision, in turn, as ratios.

    python benchmarks/rtdetr_against_transformers.py --depth 18 --image-size 256 --batch 4
    python benchmarks/rtdetr_against_transformers.py --depth 18 --image-size 640 --inference

A ratio above 1 means that Boxwright is faster. Times are medians over rounds in which both sides take turns, so that
whatever else the machine does meets both alike.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "parity"))

import torch
from transformers_rtdetr import transformers_rtdetr

import boxwright
from boxwright.queries import normalize_targets
from side_by_side import in_turn, random_objects


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, choices=(18, 50), default=18)
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--objects", type=int, default=13, help="per image")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--inference", action="store_true", help="batch 1, without gradient, instead of training")
    options = parser.parse_args()

    torch.manual_seed(0)
    side = options.image_size
    detector = boxwright.build(f"rtdetr_r{options.depth}", num_classes=80, overrides={"image_size": side})
    peer = transformers_rtdetr(options.depth, detector, num_denoising=100)
    batch = 1 if options.inference else options.batch
    images = torch.rand(batch, 3, side, side)
    # As the training loop, the evaluator and the predictor do on a CPU.
    channels_last = images.contiguous(memory_format=torch.channels_last)
    detector.to(memory_format=torch.channels_last)
    if options.inference:
        folded = detector.fold()
        peer.eval()

        @torch.inference_mode()
        def ours() -> None:
            folded(channels_last)

        @torch.inference_mode()
        def theirs() -> None:
            peer(pixel_values=images)
    else:
        generator = torch.Generator().manual_seed(0)
        targets = [random_objects(options.objects, side, 80, generator) for _ in range(batch)]
        labels = [{"class_labels": t.labels, "boxes": t.boxes_cxcywh_norm} for t in normalize_targets(targets)]
        detector.train()
        peer.train()
        our_optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-5)
        their_optimizer = torch.optim.AdamW(peer.parameters(), lr=1e-5)

        def ours() -> None:
            our_optimizer.zero_grad()
            sum(detector.loss(detector(channels_last, None, targets), targets).values()).backward()
            our_optimizer.step()

        def theirs() -> None:
            their_optimizer.zero_grad()
            peer(pixel_values=images, labels=labels).loss.backward()
            their_optimizer.step()

    our_time, their_time = in_turn(ours, theirs, rounds=options.rounds)
    what = "inference" if options.inference else "training step"
    print(
        f"RT-DETR R{options.depth}, {side} pixels, batch {batch}, {torch.get_num_threads()} threads, {what}: "
        f"boxwright {our_time * 1e3:.0f} ms, transformers {their_time * 1e3:.0f} ms, "
        f"ratio {their_time / our_time:.2f}"
    )


if __name__ == "__main__":
    main()
