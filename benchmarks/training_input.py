"""A training step that waits for images, beside one that has them: the fraction of time in which the device works.

    python benchmarks/training_input.py --device cuda --depth 50 --image-size 640 --batch 8 --workers 8

Both are Boxwright's training step of RT-DETR. One takes each batch from the data workers, which read, augment and
batch images as ``boxwright train`` does; the other has one batch on the device. The ratio, of the second's time by the
first's, is the fraction of time that the device is busy: 1 where images are always there in time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

import boxwright
from boxwright.data.loading.loader import train_loader
from boxwright.data.loading.sampler import BatchSampler
from boxwright.data.open import open_data
from boxwright.data.synthetic.shapes import draw_data_set
from boxwright.detector import Detector
from boxwright.structures import Batch
from boxwright.training.optimizer import make_optimizer
from boxwright.training.step import targets_to, train_step
from side_by_side import Row, begin, make_common_parser, make_row, print_rows
from training_steps import with_precision

CASES = ("--depth 18 --image-size 256 --batch 4 --workers 0 --rounds 3",)
QUICK = ("--depth 18 --image-size 64 --batch 2 --workers 1 --images 8 --steps 2",)


def make_parser() -> argparse.ArgumentParser:
    parser = make_common_parser(__doc__, rounds=3, devices=True)
    parser.add_argument("--depth", type=int, choices=(18, 50), default=50)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workers", type=int, default=8, help="processes that read images")
    parser.add_argument("--images", type=int, default=200, help="of the drawn data set")
    parser.add_argument("--steps", type=int, default=15, help="in a row, of each round")
    return parser


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Compare steps with data workers and steps with one batch, in each precision."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "drawn")
        draw_data_set(folder, train=options.images, val=1, image_size=options.image_size)
        for precision in options.precision:
            begin(options)
            name, overrides = f"rtdetr_r{options.depth}", {"image_size": options.image_size}
            categories = open_data(folder, "train").categories
            detector = boxwright.build(name, categories=categories, overrides=overrides)
            work = (
                f"training step of RT-DETR-R{options.depth}, {options.image_size} px, batch {options.batch}, images "
                f"from {options.workers} workers"
            )
            measured = list(rounds_of(detector, folder, options, precision))
            yield make_row(work, "the same batch again", measured, precision)


def rounds_of(
    detector: Detector, folder: Path, options: argparse.Namespace, precision: str
) -> Iterator[tuple[float, float]]:
    """Measure seconds of a step with data workers and of one without, in each round."""
    device = torch.device(options.device)
    training = with_precision(detector.recipe.train, precision)
    detector.to(device).train()
    if device.type == "cpu":
        detector.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(detector, training)
    batches = read_batches(detector, folder, options)
    first = next(batches)
    ready = first._replace(images=first.images.to(device), targets=targets_to(first.targets, device))

    def seconds(steps: Iterator[Batch]) -> float:
        wait_for(device)
        start = time.perf_counter()
        for _ in range(options.steps):
            train_step(detector, detector, optimizer, next(steps), training, device)
        wait_for(device)
        return (time.perf_counter() - start) / options.steps

    for i in range(options.rounds + 1):
        without = seconds(iter([ready] * options.steps))
        for _ in range(2 * options.workers):  # until nothing is ready ahead of time
            next(batches)
        waiting = seconds(batches)
        if i:
            yield waiting, without


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def read_batches(detector: Detector, folder: Path, options: argparse.Namespace) -> Iterator[Batch]:
    """Read batches as ``boxwright train`` does, more than are needed."""
    data = open_data(folder, "train")
    steps = (options.rounds + 2) * (options.steps + 2 * options.workers) + 1
    sampler = BatchSampler(
        seed=0,
        num_samples=len(data.records),
        batch_size=options.batch,
        num_steps=steps,
        image_sizes=[options.image_size],
    )
    loader = train_loader(
        data,
        augmentation=detector.recipe.augment,
        input_format=detector.recipe.input,
        sampler=sampler,
        num_workers=options.workers,
        pin_memory=torch.device(options.device).type == "cuda",
    )
    return iter(loader)


if __name__ == "__main__":
    print_rows(measure(make_parser().parse_args()))
